//! The Sovereign Mesh: event catalog, presence, Phoenix, lineage. A client of any NATS server.
