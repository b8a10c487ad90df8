//! The coordinator: sweep → plan → publish → watch → collect → report.
