//! The mesh under load: the event mix of the twelve systems from several instances, stored and read back, as
//! `mesh hammer` does it. The figure is the time an event takes; a run that loses, doubles or misorders one fails.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sovereign_mesh::mesh::hammer::{Load, Progress};
use sovereign_mesh::mesh::{Catalog, Complaints, Identity, Mesh, Options};
use sovereign_mesh::{Config, TestServer};
use tokio_util::sync::CancellationToken;

/// How long one run publishes.
const RUN: Duration = Duration::from_millis(500);
/// Publishes an instance has outstanding.
const WINDOW: usize = 64;

async fn load(url: &str, instances: usize) -> Load {
    let mut clients = Vec::with_capacity(instances);
    for _ in 0..instances {
        clients.push(async_nats::connect(url).await.expect("the server listens"));
    }
    Load {
        clients,
        time: RUN,
        window: WINDOW,
        rate: None,
    }
}

fn hammer(c: &mut Criterion) {
    let server = TestServer::with(Config {
        monitor_port: None,
        ..Config::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system starts threads");
    let url = server.url();
    let mesh = runtime.block_on(async {
        let options = Options {
            timeout: Duration::from_secs(10),
            identity: Identity::from_env().expect("the host has a name"),
            catalog: Catalog::builtin(),
            state_dir: std::env::temp_dir(),
            complaints: Complaints::default(),
        };
        let client = async_nats::connect(&url).await.expect("the server listens");
        Mesh::new(client, options)
    });
    let mut group = c.benchmark_group("hammer");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5))
        .throughput(Throughput::Elements(1));
    for instances in [1, 10, 40] {
        group.bench_function(format!("an event from {instances} instances"), |b| {
            b.iter_custom(|iterations| {
                let report = runtime.block_on(async {
                    let load = load(&url, instances).await;
                    let progress = Arc::new(Progress::default());
                    mesh.hammer(&load, progress, CancellationToken::new()).await
                });
                let report = report.expect("the hammer comes to its end");
                assert!(
                    report.is_clean() && report.acked > 0,
                    "an event was lost, doubled or misordered"
                );
                let event = report.seconds / report.acked as f64;
                Duration::from_secs_f64(event * iterations as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hammer);
criterion_main!(benches);
