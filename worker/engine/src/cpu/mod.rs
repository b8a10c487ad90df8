//! The two products that decoding on a CPU spends its time in, at the speed of its memory: a matrix
//! times one vector, and the attention of one token. Elsewhere the plain candle operations run.

pub mod attention;
pub mod dot;
pub mod gemv;
