//! Every record once, whatever stops the pipeline: kills between its steps, a store that cannot
//! commit, a store that was lost.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_after_any_step_leaves_every_record_exactly_once() {
    for steps in 0..=3 {
        let site = site();
        append_mixture(&site).await;
        let site = killed_after(&site, steps).await;
        let running = site.start().await;
        site.append_raw("inv-1", reading(100)).await;
        let left = if steps < 2 { 31 } else { 1 };
        running.until(|status| status.clean == left).await;
        let reader = running.handle.reader();
        running.stop().await;
        site.assert_exactly(&reader, 31, 6, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_store_and_mirror_is_mended_at_the_next_start() {
    let site = site();
    append_mixture(&site).await;
    let site = killed_after(&site, 2).await;
    let raw = site.log.topic(RAW_TOPIC).unwrap();
    let mirrored = |index| site.log.committed_offset(TELEMETRY_GROUP, raw.id(), index);
    assert!(
        raw.partitions()
            .iter()
            .all(|partition| mirrored(partition.index()).is_none())
    );
    let running = site.start().await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 30, 6, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_after_kill_makes_progress_and_no_duplicates() {
    let mut site = site();
    append_mixture(&site).await;
    for steps in [1, 1, 0, 1] {
        site = killed_after(&site, steps).await;
        site.append_raw("later", reading(200 + steps as i64)).await;
    }
    let running = site.start().await;
    running.until(|status| status.clean == 32).await;
    let reader = running.handle.reader();
    running.stop().await;
    // Of the four later readings three are the same.
    site.assert_exactly(&reader, 32, 6, 6);
}

/// The disk after a kill behind the first so many steps of the first batch.
async fn killed_after(site: &Site, steps: usize) -> Site {
    let Assembled {
        mut committer,
        progress,
        ..
    } = site.assemble().await;
    let rules = Arc::new(Rules::new(&site.config));
    let feed = Feed::Telemetry {
        topic: RAW_TOPIC,
        rules,
    };
    let mut consumer = site
        .log()
        .consumer(RAW_TOPIC, |id, index| progress.wanted(id, index))
        .unwrap();
    let polled = consumer.poll(usize::MAX, 16 << 20).await.unwrap();
    let mut prepared = committer.prepare(vec![feed.judge(polled, now_ms())]);
    if steps >= 1 {
        committer.produce(&mut prepared).await.unwrap();
    }
    let prepared = Arc::new(prepared);
    if steps >= 2 {
        committer.store(&prepared).await.unwrap();
    }
    if steps >= 3 {
        committer.mirror().await;
    }
    // The committer and its store live until the image is taken.
    let image = site.killed();
    drop(committer);
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_store_over_an_old_log_is_rebuilt_without_repeating_the_topics() {
    let site = site();
    append_mixture(&site).await;
    let running = site.start().await;
    running
        .until(|status| status.clean == 30 && status.invalid == 6)
        .await;
    running.stop().await;
    std::fs::remove_dir_all(site.store_dir()).unwrap();
    let running = site.start().await;
    running
        .until(|status| status.clean == 30 && status.invalid == 6 && status.duplicates == 4)
        .await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 30, 6, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_commit_is_visible_and_nothing_is_skipped() {
    let site = site();
    let running = site.start().await;
    site.append_raw("inv-1", reading(1)).await;
    running.until(|status| status.clean == 1).await;
    let foreign = lock(&site);
    append_mixture(&site).await;
    let status = running
        .until(|status| status.problems.contains_key("store"))
        .await;
    assert!(status.problems["store"].contains("locked"), "{status:?}");
    drop(foreign);
    running
        .until(|status| status.clean == 30 && status.problems.is_empty())
        .await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 30, 6, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_while_the_store_cannot_commit_and_goes_on_at_the_next_start() {
    let site = site();
    let running = site.start().await;
    site.append_raw("inv-1", reading(1)).await;
    running.until(|status| status.clean == 1).await;
    let foreign = lock(&site);
    append_mixture(&site).await;
    running
        .until(|status| status.problems.contains_key("store"))
        .await;
    running.stop().await;
    drop(foreign);
    let running = site.start().await;
    running.until(|status| status.clean == 29).await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 30, 6, 5);
}

/// A write lock that somebody else holds, as the sqlite3 shell would.
fn lock(site: &Site) -> Connection {
    let connection = Connection::open(site.store_dir().join(STORE_FILE)).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_larger_than_one_append_are_produced_piece_by_piece() {
    let site = site();
    let pad = "x".repeat(800_000);
    for n in 0..12 {
        site.append_raw(
            "k",
            format!(r#"{{"inverter_id":"inv-1","ts":{},"pad":"{pad}"}}"#, T + n),
        )
        .await;
    }
    let site = killed_after(&site, 1).await;
    let running = site.start().await;
    running.until(|status| status.clean == 12).await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 12, 0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intake_that_begins_anew_hands_nothing_over_twice() {
    let site = site();
    append_mixture(&site).await;
    let Assembled {
        mut committer,
        progress,
        ..
    } = site.assemble().await;
    let feed = Feed::Telemetry {
        topic: RAW_TOPIC,
        rules: Arc::new(Rules::new(&site.config)),
    };
    let mut prepared = Vec::new();
    for _ in 0..2 {
        // Nothing is stored in between, so the second consumer begins where the first did.
        let mut consumer = site
            .log()
            .consumer(RAW_TOPIC, |id, index| progress.wanted(id, index))
            .unwrap();
        let polled = consumer.poll(usize::MAX, 1 << 20).await.unwrap();
        prepared.push(committer.prepare(vec![feed.judge(polled, now_ms())]).commit);
    }
    let sizes = |commit: &holdfast_storage::telemetry::Commit| {
        (
            commit.clean.len(),
            commit.invalid.len(),
            commit.duplicates.len(),
        )
    };
    assert_eq!(
        (sizes(&prepared[0]), sizes(&prepared[1])),
        ((30, 6, 4), (0, 0, 0))
    );
}
