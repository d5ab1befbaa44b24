//! Facts: what is known of the world, each part replaced whole by its next observation.
pub mod postgres;
