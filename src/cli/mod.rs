//! The command line: arguments, subcommands, output. Sees only the public API and a NATS client.
