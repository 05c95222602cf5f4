//! The parts of `--help` that are not about one argument.

pub(crate) const USES: &str = "accio-client [OPTIONS] <HOST> <PORT> <FILE>...
       accio-client [OPTIONS] --from-command <CMD> <HOST> <PORT>
       accio-client [OPTIONS] --probe <HOST> <PORT>";

pub(crate) const SHORT: &str = "See --help for details, examples and exit codes.";

pub(crate) const LONG: &str = "\
Examples:
  Send a file:
    accio-client localhost 5000 photo.jpg
  Send several files, four at a time, with up to three retries each:
    accio-client --jobs 4 --retry 3 files.example 5000 *.jpg
  Send a directory as a tar archive:
    accio-client localhost 5000 photos
  Send the output of a command, and fail if the command fails:
    accio-client localhost 5000 --from-command 'pg_dump shop'
  Send a pipe; a failure of the program that writes to it is not detected:
    gzip -c log | accio-client localhost 5000 -
  Limit the rate, over IPv4 only:
    accio-client -4 --limit-rate 2M files.example 5000 disk.img
  Find out what listens on a port:
    accio-client --probe files.example 5000
  For a script:
    accio-client -q --json localhost 5000 photo.jpg | jq -r 'select(.event == \"failed\").code'

Exit codes, as in curl; with several files, that of the first FILE that failed:
   0  sent, with a note if the server did not confirm (28 with --require-confirmation)
   2  usage error
   6  the host name did not resolve
   7  could not connect, or this machine lacks descriptors, memory or ports
  23  could not write to stdout
  26  could not read the file, or the command of --from-command failed
  28  a time limit was exceeded
  35  TLS failed
  45  could not use the address of --source
  55  the connection failed during the transfer
  56  invalid handshake, or a reset instead of the confirmation
  58  could not use the key of --tls-identity
  60  the server's key or certificate is not trusted
  77  could not use the authorities of --tls-ca or of this system

Values:
  K, M, G and T in sizes are powers of 1024: 64K, 1.5G, 10MB (the same as 10M).
  Times are seconds, or have a unit: 2.5, 500ms, 10s, 5m.

Environment:
  Each flag with a value has a variable: ACCIO_TIMEOUT=30, ACCIO_LIMIT_RATE=2M.
  The command line takes precedence.
  NO_COLOR disables colour, RUST_LOG=debug logs each step on stderr.";
