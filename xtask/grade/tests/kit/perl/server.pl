# A server in the dialect `confirm`: server.pl PORT DIR
use strict;
use warnings;
use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Select;
use IO::Socket::IP;
use Time::HiRes qw(time);

my $LIMIT = 10;
my $ANSWERS = ["confirm-accio\r\n", "confirm-accio-again\r\n\r\n"];

$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 0 } for qw(INT TERM QUIT);

sub fail {
    print STDERR "ERROR: @_\n";
    exit 1;
}

fail('usage: server.pl PORT DIR') unless @ARGV == 2;
my ($port, $dir) = @ARGV;
fail("bad port $port") unless $port =~ /^\d{1,5}$/ && $port >= 1 && $port <= 65535;
-d $dir or mkdir $dir or fail("cannot make $dir: $!");
my $listener = IO::Socket::IP->new(
    LocalHost => '0.0.0.0', LocalPort => $port, Listen => 100, ReuseAddr => 1,
) or fail("cannot listen: $@");
$listener->blocking(0);

my $selector = IO::Select->new($listener);
my %connections;
my $number = 0;

# Ends a connection; a failed one leaves the single word.
sub finish {
    my ($one, $good) = @_;
    if (!$good) {
        seek($one->{file}, 0, 0);
        truncate($one->{file}, 0);
        syswrite($one->{file}, 'ERROR');
    }
    close $one->{file};
    $selector->remove($one->{socket});
    delete $connections{fileno $one->{socket}};
    close $one->{socket};
}

sub begin {
    my $socket = $listener->accept() or return;
    $socket->blocking(0);
    $number += 1;
    open(my $file, '+>:raw', "$dir/$number.file") or return;
    my $one = { socket => $socket, file => $file, heard => time, said => '', stage => 0 };
    $connections{fileno $socket} = $one;
    $selector->add($socket);
    syswrite($socket, "accio\r\n") // finish($one, 0);
}

# Takes the confirmations off what came; what is left is the file's.
sub receive {
    my ($one) = @_;
    my $count = sysread($one->{socket}, my $bytes, 64 * 1024);
    return if !defined $count && ($!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR});
    return finish($one, defined $count && $one->{stage} == @$ANSWERS) unless $count;
    $one->{heard} = time;
    while ($one->{stage} < @$ANSWERS) {
        my $expected = $ANSWERS->[$one->{stage}];
        $one->{said} .= $bytes;
        my $length = length $one->{said} < length $expected ? length $one->{said} : length $expected;
        return finish($one, 0) if substr($one->{said}, 0, $length) ne substr($expected, 0, $length);
        return if $length < length $expected;
        $bytes = substr($one->{said}, $length);
        $one->{said} = '';
        $one->{stage} += 1;
        syswrite($one->{socket}, "accio\r\n") // return finish($one, 0) if $one->{stage} == 1;
    }
    finish($one, 0) if length $bytes && !defined syswrite($one->{file}, $bytes);
}

while (1) {
    my $next = undef;
    for my $one (values %connections) {
        my $left = $one->{heard} + $LIMIT - time;
        if ($left <= 0) {
            finish($one, 0);
        } elsif (!defined $next || $left < $next) {
            $next = $left;
        }
    }
    for my $socket ($selector->can_read($next)) {
        if ($socket == $listener) {
            begin();
        } elsif (my $one = $connections{fileno $socket}) {
            receive($one);
        }
    }
}
