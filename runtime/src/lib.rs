//! The agent: executes core's orders on a real store and a real PostgreSQL.

pub mod agent;
pub mod api;
mod aside;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod demo;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod generate;
pub mod guard;
pub mod hooks;
pub mod http;
pub mod init;
pub mod logging;
pub mod net;
pub mod peers;
pub mod postgres;
pub mod processes;
pub mod recorder;
pub mod schedule;
pub mod service;
pub mod store;
pub mod tls;
pub mod wire;
