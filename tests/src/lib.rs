//! Real clusters for tests: real stores, real agents, real PostgreSQL servers, faults that the kernel makes, and a
//! ledger of acknowledged rows that decides what the faults did.
//!
//! A test starts a [`Cluster`] from a [`Plan`], starts a [`Ledger`] of writing clients, breaks something, waits until
//! the cluster has healed and asks the ledger for its [`Verdict`]. Everything ends with the [`Cluster`], also in a
//! panic; the logs of every process are then printed.

mod certificates;
mod clients;
mod cluster;
pub mod conformance;
mod demo;
mod examples;
mod front;
pub mod guarded;
mod ledger;
mod lock;
mod model;
mod network;
mod node;
mod orphan;
mod plan;
mod process;
mod reaper;
mod repository;
pub mod scripts;
pub mod single;
mod store;
mod tools;
mod wait;

pub use certificates::Certificates;
pub use clients::{Clients, Said};
pub use cluster::Cluster;
pub use demo::{Demo, run_as};
pub use examples::{documented, example};
pub use front::Front;
pub use ledger::{Allowance, Ledger, Mark, Reign, Verdict};
pub use model::Model;
pub use network::{Host, Network};
pub use node::{Answer, Node};
pub use orphan::CommitLoop;
pub use plan::{Agent, Plan, StoreKind};
pub use process::Process;
pub use reaper::{Child, Ended};
pub use repository::Repository;
pub use store::Store;
pub use tools::{matriarch, output_of, patroni, postgres_bin_dir, released, schemathesis};
pub use wait::{eventually, wait_until};
