# A client in the dialect `confirm`: client.pl HOST PORT FILE
use strict;
use warnings;
use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Select;
use IO::Socket::IP;
use Socket qw(SHUT_WR);
use Time::HiRes qw(time);

my $LIMIT = 10;

$SIG{PIPE} = 'IGNORE';

sub fail {
    print STDERR "ERROR: @_\n";
    exit 1;
}

sub again { return $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR} }

fail('usage: client.pl HOST PORT FILE') unless @ARGV == 3;
my ($host, $port, $name) = @ARGV;
fail("bad port $port") unless $port =~ /^\d{1,5}$/ && $port >= 1 && $port <= 65535;
open(my $file, '<:raw', $name) or fail("cannot open $name: $!");

my $socket = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port, Timeout => $LIMIT)
    or fail("cannot connect: $@");
$socket->blocking(0);
my $selector = IO::Select->new($socket);

# Waits for one greeting, however it is cut.
sub greeted {
    my ($expected, $got, $deadline) = ("accio\r\n", '', time + $LIMIT);
    while ($got ne $expected) {
        my $left = $deadline - time;
        fail('no greeting in time') if $left <= 0 || !$selector->can_read($left);
        my $count = sysread($socket, $got, length($expected) - length $got, length $got);
        next if !defined $count && again();
        fail("connection lost: $!") unless defined $count;
        fail('closed before the greeting') if $count == 0;
        fail('a wrong greeting') if substr($expected, 0, length $got) ne $got;
    }
}

# Sends all of it, as long as some of it goes out every ten seconds.
sub put {
    my ($bytes) = @_;
    my $sent = 0;
    while ($sent < length $bytes) {
        fail('the server takes nothing') unless $selector->can_write($LIMIT);
        my $count = syswrite($socket, $bytes, length($bytes) - $sent, $sent);
        next if !defined $count && again();
        fail("connection lost: $!") unless defined $count;
        $sent += $count;
    }
}

greeted();
put("confirm-accio\r\n");
greeted();
put("confirm-accio-again\r\n\r\n");
while (my $count = sysread($file, my $bytes, 64 * 1024) // fail("cannot read $name: $!")) {
    put($bytes);
}
$socket->shutdown(SHUT_WR);

# The server closes when it has everything. One that never does is not waited for.
my $deadline = time + $LIMIT;
while ((my $left = $deadline - time) > 0) {
    next unless $selector->can_read($left);
    my $count = sysread($socket, my $rest, 4096);
    next if !defined $count && again();
    fail("connection lost: $!") unless defined $count;
    last if $count == 0;
}
exit 0;
