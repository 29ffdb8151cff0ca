//! Everything redb: the message log, stream and consumer rows, group commit, recovery.
