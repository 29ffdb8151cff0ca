//! Routing: what a publish costs by the number of subscriptions, found in the publisher's cache and not; what a
//! subscription costs in time and memory; what a storm of them costs a publisher.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sovereign_mesh::protocol::encode::Message;
use sovereign_mesh::router::{Batch, Client, Publisher, Router, Service};

/// Takes messages and drops them: what is measured is the router.
struct Sink;

impl Service for Sink {
    fn accept(&self, batch: Batch) {
        black_box(batch.len());
    }
}

/// A router with `count` subscriptions on distinct subjects, one in ten of them a pattern.
fn filled(count: usize) -> Arc<Router> {
    let router = Arc::new(Router::new());
    let sink: Arc<dyn Service> = Arc::new(Sink);
    for number in 0..count {
        let pattern = if number % 10 == 0 {
            format!("mesh.s{number}.*")
        } else {
            format!("mesh.s{number}.event")
        };
        router.subscribe_service(&sink, pattern.as_bytes(), None);
    }
    router
}

fn message(subject: &str) -> Message<'_> {
    Message {
        subject: subject.as_bytes(),
        payload: b"payload",
        ..Message::default()
    }
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    for (name, count) in [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)] {
        let router = filled(count);
        let subjects: Vec<String> = (0..count).map(|number| format!("mesh.s{number}.event")).collect();
        let mut publisher = Publisher::new(router.clone());
        let mut sent = 0usize;
        group.bench_function(format!("{name} subscriptions, cached"), |b| {
            b.iter(|| {
                publisher.publish(&message(&subjects[sent % 2]), None);
                sent += 1;
                if sent.is_multiple_of(512) {
                    publisher.flush();
                }
            });
        });
        publisher.flush();
        group.bench_function(format!("{name} subscriptions, not cached"), |b| {
            b.iter(|| {
                // A stride through all of them defeats the cache where there are more than it holds.
                publisher.publish(&message(&subjects[sent * 7919 % count]), None);
                sent += 1;
                if sent.is_multiple_of(512) {
                    publisher.flush();
                }
            });
        });
        publisher.flush();
    }
    group.finish();
}

fn subscribing(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscribe");
    let router = filled(100_000);
    let client = Client::new(1, 1 << 20);
    let mut number = 0u64;
    group.bench_function("one more and away again, at 100k", |b| {
        b.iter_batched(
            || {
                number += 1;
                (number.to_string(), format!("_INBOX.{number}"))
            },
            |(sid, subject)| {
                router.subscribe(&client, sid.as_bytes(), subject.as_bytes(), None);
                router.unsubscribe(&client, sid.as_bytes(), None);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    println!(
        "memory of a subscription: {} bytes (100,000 on distinct subjects of 13 bytes)",
        memory_each(100_000)
    );
}

/// Growth of the resident set by so many subscriptions of one client, for each.
fn memory_each(count: usize) -> u64 {
    let router = Router::new();
    let client = Client::new(1, 1 << 20);
    let before = resident();
    for number in 0..count {
        let sid = number.to_string();
        router.subscribe(
            &client,
            sid.as_bytes(),
            format!("_INBOX.{number:06}").as_bytes(),
            None,
        );
    }
    resident().saturating_sub(before) / count as u64
}

/// Resident bytes of this process; zero where the system does not tell.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or_default()
        * 4096
}

/// A publisher at work while another thread subscribes and unsubscribes 100,000 inboxes over and over.
fn storm(c: &mut Criterion) {
    let mut group = c.benchmark_group("storm");
    let router = filled(1_000);
    let stop = Arc::new(AtomicBool::new(false));
    let storming = {
        let (router, stop) = (router.clone(), stop.clone());
        std::thread::spawn(move || {
            let client = Client::new(1, 1 << 20);
            while !stop.load(Ordering::Relaxed) {
                for number in 0..100_000 {
                    let sid = number.to_string();
                    router.subscribe(
                        &client,
                        sid.as_bytes(),
                        format!("_INBOX.{number}").as_bytes(),
                        None,
                    );
                }
                router.remove_client(&client);
            }
        })
    };
    let mut publisher = Publisher::new(router.clone());
    let mut sent = 0usize;
    group.bench_function("publish beside 100k subscriptions coming and going", |b| {
        b.iter(|| {
            publisher.publish(&message("mesh.s1.event"), None);
            sent += 1;
            if sent.is_multiple_of(512) {
                publisher.flush();
            }
        });
    });
    publisher.flush();
    stop.store(true, Ordering::Relaxed);
    storming.join().expect("the storm ends when told");
    group.finish();
}

criterion_group!(benches, matching, subscribing, storm);
criterion_main!(benches);
