//! ctl
/// x
#[derive(clap::Subcommand)]
pub enum Command {
    /// x
    List,
}
/// x
pub fn run(_c: Command) -> u8 {
    0
}
/// x
pub fn main_as_patronictl(_a: Vec<std::ffi::OsString>) -> u8 {
    0
}
