//! A minute of rough times for three nodes, by the program that does it for hours (`src/bin/chaos`): every promise is held
//! against what the clients recorded. Its seed is fixed, `SOJOURN_SEED` sets another one.

use anyhow::{Result, ensure};
use sojourn_chaos_tests::rough::clients::Load;
use sojourn_chaos_tests::rough::plan::Kind;
use sojourn_chaos_tests::rough::{Plan, report, run};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_of_rough_times_breaks_no_promise() -> Result<()> {
    let seed = std::env::var("SOJOURN_SEED").ok();
    let seed = seed.map_or(Ok(4), |seed| seed.parse())?;
    let plan = Plan {
        seed,
        rough: Duration::from_secs(60),
        nodes: 3,
        shards: 4,
        clients: 3,
        load: Load {
            rate: 20.0,
            lanes: 8,
            customers: 4,
        },
        // those that are over soon, and do not ask for a cluster that is whole in a time that depends on the machine
        kinds: vec![
            Kind::Kill,
            Kind::Standstill,
            Kind::Apart,
            Kind::OneWay,
            Kind::ClockStep,
            Kind::Transfer,
            Kind::Publish,
            Kind::SyncFails,
        ],
        strict: false,
        tell: true,
    };
    let outcome = run(&plan).await?;
    let told = report::markdown(&plan, &outcome, "this work tree");
    ensure!(outcome.worst().is_none(), "{told}");
    // a minute in which nothing happens proves nothing
    let acknowledged = outcome.history.attempts.iter();
    let acknowledged = acknowledged.filter(|a| a.told.recorded().is_some()).count();
    ensure!(outcome.injected.len() >= 3 && acknowledged >= 100, "{told}");
    Ok(())
}
