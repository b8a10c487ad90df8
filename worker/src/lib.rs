//! The worker: pull → load → generate → store → ack.
