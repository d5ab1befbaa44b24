//! Configuration: Patroni's YAML as it stands in the field, and our own section `matriarch`.
//!
//! [`load`] reads the local configuration (file or directory, environment over it) and says everything that is wrong
//! with it at once, each complaint with its line. [`DynamicConfig`] is what the cluster shares in the store;
//! [`effective_parameters`] and [`effective_postgresql`] lay the two over each other. [`to_yaml`] writes data as
//! Patroni's tools write it.
//!
//! Nothing wrong is silently replaced by a default, and no password is ever shown.

mod build;
pub mod check;
pub mod dynamic;
pub mod effective;
pub mod emit;
pub mod env;
mod ignored;
mod json_schema;
pub mod local;
pub mod parameters;
pub mod patch;
pub mod quantity;
pub mod report;
pub mod resolve;
pub mod schema;
pub mod secret;
mod slots;
pub mod source;
pub mod tags;
pub mod yaml;

pub use dynamic::{DynamicConfig, SynchronousMode};
pub use effective::{EffectivePostgresql, effective_postgresql};
pub use emit::to_yaml;
pub use env::{EnvOverrides, env_overrides, environment};
pub use json_schema::json_schema;
pub use local::{Address, Credentials, LocalConfig};
pub use parameters::{Parameters, effective_parameters};
pub use report::{Problem, Severity, Sources, render};
pub use secret::Secret;
pub use source::{ClientConfig, ConfigError, Loaded, load, load_client, validate};
