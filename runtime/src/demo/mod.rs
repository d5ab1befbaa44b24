//! demo
/// x
#[derive(clap::Args)]
pub struct DemoArgs {}
/// x
pub fn run(_a: &DemoArgs) -> anyhow::Result<u8> {
    Ok(0)
}
