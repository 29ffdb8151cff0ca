//! Streams with a record that cannot be read: it goes when its time or its limit comes, and the counters agree.

use super::*;

const MESSAGES: usize = 50;

impl Rig {
    /// Stops, flips a bit in every payload that has the mark, and starts again.
    pub(super) async fn restart_damaged(self, marks: &[String]) -> Self {
        self.jetstream.shutdown().await;
        let dir = self.dir.unwrap();
        drop(self.jetstream);
        let path = dir.path().join("mesh.redb");
        let mut bytes = std::fs::read(&path).unwrap();
        for mark in marks {
            let places: Vec<_> = memchr::memmem::find_iter(&bytes, mark).collect();
            assert!(!places.is_empty(), "{mark} is on the disk");
            places.into_iter().for_each(|at| bytes[at] ^= 1);
        }
        std::fs::write(&path, bytes).unwrap();
        Self::new(Some(open_store(&dir)), Some(dir))
    }

    async fn fill(&self, config: Value, headers: &[(&str, &str)]) {
        let name = config["name"].as_str().unwrap().to_owned();
        self.create(config).await;
        for n in 0..MESSAGES {
            let subject = format!("{name}.{n}");
            let payload = format!("MARK-{name}-{n:04}-");
            self.publish(&subject, headers, &payload).await;
        }
    }
}

fn at_seq(name: &str, seq: usize) -> String {
    format!("MARK-{name}-{:04}-", seq - 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_goes_in_its_time() {
    let rig = Rig::on_disk();
    let subjects = |name: &str| json!([format!("{name}.>")]);
    let own = json!({"name": "T", "subjects": subjects("T"), "allow_msg_ttl": true});
    rig.fill(own, &[("Nats-TTL", "1h")]).await;
    let age = json!({"name": "A", "subjects": subjects("A"), "max_age": 3_600_000_000_000u64});
    rig.fill(age, &[]).await;
    let count = json!({"name": "M", "subjects": subjects("M"), "max_msgs": MESSAGES});
    rig.fill(count, &[]).await;
    rig.fill(json!({"name": "P", "subjects": subjects("P")}), &[])
        .await;
    rig.fill(json!({"name": "D", "subjects": subjects("D")}), &[])
        .await;
    let mut marks: Vec<_> = ["T", "A", "M", "P", "D"].map(|name| at_seq(name, 25)).into();
    marks.push(at_seq("A", 50));
    let rig = rig.restart_damaged(&marks).await;
    for name in ["T", "A"] {
        let stream = rig.jetstream.stream(name).unwrap();
        stream.tick(now_ns() + 3_601 * time::SECOND);
        stream.settled().await;
        assert_eq!(summary(&rig.state(name).await), (0, 51, 50), "{name}");
        assert_eq!(rig.state(name).await["num_subjects"], Value::Null);
    }
    for n in 0..30 {
        rig.publish(&format!("M.x{n}"), &[], "x").await;
        let (messages, first, last) = summary(&rig.state("M").await);
        assert_eq!((messages, first), (50, n + 2));
        assert_eq!(last, n + 51);
    }
    let purged = rig.api("STREAM.PURGE.P", json!({"filter": "P.>"})).await;
    assert_eq!(purged["purged"], 50, "{purged}");
    assert_eq!(summary(&rig.state("P").await), (0, 51, 50));
    let deleted = rig.api("STREAM.MSG.DELETE.D", json!({"seq": 25})).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    let state = rig.state("D").await;
    assert_eq!(summary(&state), (49, 1, 50));
    assert_eq!(state["num_subjects"], 49);
    rig.jetstream.shutdown().await;
}
