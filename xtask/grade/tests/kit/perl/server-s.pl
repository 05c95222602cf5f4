# A simplified server in the dialect `confirm`: server-s.pl PORT
use strict;
use warnings;
use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Select;
use IO::Socket::IP;

my $LIMIT = 10;

$| = 1;
$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 0 } for qw(INT TERM QUIT);

sub fail {
    print STDERR "ERROR: @_\n";
    exit 1;
}

fail('usage: server-s.pl PORT') unless @ARGV == 1;
my ($port) = @ARGV;
fail("bad port $port") unless $port =~ /^\d{1,5}$/ && $port >= 1 && $port <= 65535;
my $listener = IO::Socket::IP->new(
    LocalHost => '0.0.0.0', LocalPort => $port, Listen => 100, ReuseAddr => 1,
) or fail("cannot listen: $@");

# Bytes of the file that came over the connection; undef when it failed.
sub serve {
    my ($socket) = @_;
    my $selector = IO::Select->new($socket);
    my $total = 0;
    my $said = '';
    my @answers = ("confirm-accio\r\n", "confirm-accio-again\r\n\r\n");
    $socket->blocking(0);
    syswrite($socket, "accio\r\n") // return undef;
    while (1) {
        return undef unless $selector->can_read($LIMIT);
        my $count = sysread($socket, my $bytes, 64 * 1024);
        next if !defined $count && ($!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR});
        return undef unless defined $count;
        return @answers ? undef : $total if $count == 0;
        while (@answers) {
            $said .= $bytes;
            my $expected = $answers[0];
            return undef if index($said, $expected) != 0 && index($expected, $said) != 0;
            last if length $said < length $expected;
            $bytes = substr($said, length $expected);
            $said = '';
            shift @answers;
            syswrite($socket, "accio\r\n") // return undef if @answers;
        }
        $total += length $bytes unless @answers;
    }
}

while (1) {
    my $socket = $listener->accept() or next;
    my $total = serve($socket);
    print defined $total ? "$total\n" : "ERROR\n";
    close $socket;
}
