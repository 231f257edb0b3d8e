use super::writer::StorageFailure;
use super::*;

/// Holds the writer up until the test lets it go on, so that jobs gather behind it.
async fn hold(documents: &Arc<Documents>) -> std::sync::mpsc::Sender<()> {
    let (go, wait) = std::sync::mpsc::channel();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let holder = documents.clone();
    tokio::spawn(async move {
        let job = holder.writer.submit(move |_| {
            let _ = begun.send(());
            let _ = wait.recv();
            Ok(())
        });
        job.await
    });
    has_begun.await.unwrap();
    go
}

fn write(documents: &Arc<Documents>, path: &str, body: String) -> tokio::task::JoinHandle<u16> {
    let documents = documents.clone();
    let resource = resource(path);
    let head = head("PUT", path, &[("content-type", "text/plain")]);
    tokio::spawn(async move {
        let plan = documents.plan(head, resource, full(body)).await.unwrap();
        match documents.apply(plan, &|_| true, Some(Seq(1))).await {
            Execution::Ended(answer) => Seen::of_answer(collected(answer).await).status,
            Execution::Answered(..) => panic!("documents end with their answer"),
            Execution::Retarget(_) => panic!("everything is admitted"),
        }
    })
}

async fn status(documents: &Arc<Documents>, path: &str) -> u16 {
    let request = Request::from_parts(head("GET", path, &[]), full(""));
    let answer = documents.read(request, resource(path)).await;
    Seen::of_answer(collected(answer).await).status
}

#[tokio::test]
async fn what_has_gathered_is_committed_as_one() {
    let Bench { documents, folder, .. } = Bench::new();
    let documents = Arc::new(documents);
    let go = hold(&documents).await;
    let writes: Vec<_> =
        (0..100).map(|n| write(&documents, &format!("/{n}"), "x".into())).collect();
    while documents.writer.waiting() < 100 {
        tokio::task::yield_now().await;
    }
    assert!(writes.iter().all(|write| !write.is_finished()));
    documents.writer.commits.store(0, Ordering::SeqCst);
    drop(go);
    for write in writes {
        assert_eq!(write.await.unwrap(), 201);
    }
    assert_eq!(documents.writer.commits.load(Ordering::SeqCst), 1);
    drop(documents);
    drop(folder);
}

#[tokio::test]
async fn what_gathers_beside_the_file_is_moved_into_it() {
    let Bench { documents, folder, .. } = Bench::new();
    let documents = Arc::new(documents);
    let size = |name: &str| folder.path().join(name).metadata().unwrap().len();
    for n in 0..150 {
        assert_eq!(write(&documents, &format!("/{n}"), "x".repeat(100_000)).await.unwrap(), 201);
    }
    // The last checkpoint may still be under way, behind its answers.
    let (moved, beside) = (size(FILE), size(&format!("{FILE}-wal")));
    assert!(moved > 9_000_000 && beside < 6_000_000, "{moved} bytes moved, {beside} beside");
    for n in 0..150 {
        assert_eq!(status(&documents, &format!("/{n}")).await, 200);
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_committed_fails_as_a_whole_and_service_resumes() {
    let Bench { documents, folder, .. } = Bench::new();
    let documents = Arc::new(documents);
    assert_eq!(write(&documents, "/before", "x".into()).await.unwrap(), 201);
    // The disk is full.
    let go = hold(&documents).await;
    documents.writer.max_pages.store(12, Ordering::SeqCst);
    let small = write(&documents, "/small", "x".into());
    while documents.writer.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    let large = write(&documents, "/large", "x".repeat(100_000));
    while documents.writer.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    drop(go);
    assert_eq!((small.await.unwrap(), large.await.unwrap()), (503, 503));
    // Reads go on, and what was answered is there; what was not, is not.
    for (path, seen) in [("/before", 200), ("/small", 404), ("/large", 404)] {
        assert_eq!(status(&documents, path).await, seen, "{path}");
    }
    assert!(!documents.was_applied(Seq(2)).unwrap());
    assert_eq!(write(&documents, "/large", "x".repeat(100_000)).await.unwrap(), 503);
    // What fits is still taken, and once there is room, so is the rest.
    assert_eq!(write(&documents, "/small", "x".into()).await.unwrap(), 201);
    documents.writer.max_pages.store(1_000_000, Ordering::SeqCst);
    assert_eq!(write(&documents, "/large", "x".repeat(100_000)).await.unwrap(), 201);
    drop(documents);
    let documents = Documents::open(
        folder.path(),
        INCARNATION,
        Bench::options(&Arc::default(), &Arc::default()),
    );
    assert_eq!(status(&Arc::new(documents.unwrap()), "/large").await, 200);
}

#[tokio::test]
async fn a_job_that_fails_or_panics_takes_its_group_with_it_and_no_more() {
    let Bench { documents, folder, .. } = Bench::new();
    let documents = Arc::new(documents);
    for round in 0..2 {
        let go = hold(&documents).await;
        let path = format!("/{round}");
        let with_it = write(&documents, &path, "x".into());
        while documents.writer.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        let failing = documents.writer.submit::<(), _>(move |_| match round {
            0 => Err(rusqlite::Error::InvalidQuery),
            _ => panic!("a bug"),
        });
        let let_go = async {
            while documents.writer.waiting() < 2 {
                tokio::task::yield_now().await;
            }
            drop(go);
        };
        let (failed, ()) = tokio::join!(failing, let_go);
        assert_eq!(failed, Err(StorageFailure::Unknown));
        assert_eq!(with_it.await.unwrap(), 503);
        assert_eq!(status(&documents, &path).await, 404);
        assert_eq!(write(&documents, &path, "x".into()).await.unwrap(), 201);
    }
    drop(folder);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_again_takes_no_writes_until_it_can() {
    let Bench { documents, folder, .. } = Bench::new();
    let documents = Arc::new(documents);
    assert_eq!(write(&documents, "/x", "x".into()).await.unwrap(), 201);
    let raw = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
    let schema: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    raw.pragma_update(None, "user_version", schema + 1).unwrap();
    let failed = documents.writer.submit::<(), _>(|_| Err(rusqlite::Error::InvalidQuery)).await;
    assert_eq!(failed, Err(StorageFailure::Unknown));
    for _ in 0..2 {
        let refused = documents.writer.submit::<(), _>(|_| Ok(())).await;
        assert_eq!(refused, Err(StorageFailure::NotDone));
    }
    assert_eq!(status(&documents, "/x").await, 200);
    raw.pragma_update(None, "user_version", schema).unwrap();
    drop(raw);
    assert_eq!(write(&documents, "/x", "x".into()).await.unwrap(), 204);
    drop(folder);
}

#[test]
fn an_incarnation_is_eight_hexadecimal_digits() {
    let folder = tempfile::tempdir().unwrap();
    for bad in ["", "0a0b0c0", "0a0b0c0d0", "0A0B0C0D", "\"\"\"\"\"\"\"\"", "0a0b0c0é"] {
        let options = Bench::options(&Arc::default(), &Arc::default());
        let opened = Documents::open(folder.path(), bad, options);
        assert!(matches!(opened, Err(OpenError::Incarnation(_))), "{bad}");
    }
}

#[tokio::test]
async fn wherever_the_disk_is_full_what_was_acknowledged_is_there_and_the_rest_is_not() {
    let bench = Bench::new();
    let mut tags = std::collections::HashMap::new();
    let mut refused = 0;
    for pages in (6..60).chain([1_000_000]) {
        bench.documents.writer.max_pages.store(pages, Ordering::SeqCst);
        for size in [10, 3_000, 9_000] {
            let path = format!("/{pages}/{size}");
            let text = [("content-type", "text/plain")];
            let seen = bench.send("PUT", &path, &text, &"x".repeat(size)).await;
            match seen.status {
                201 => assert_eq!(tags.insert(seen.etag(), path), None),
                status => {
                    assert_eq!((status, seen.header("retry-after")), (503, Some("1")));
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 10 && tags.len() > 10, "{refused} {}", tags.len());
    let bench = bench.reopened(INCARNATION);
    for pages in (6..60).chain([1_000_000]) {
        for size in [10, 3_000, 9_000] {
            let path = format!("/{pages}/{size}");
            let seen = bench.get(&path).await;
            let etag = tags.iter().find(|(_, at)| **at == path).map(|(etag, _)| etag.as_str());
            assert_eq!(seen.header("etag"), etag, "{path}");
        }
    }
}

#[tokio::test]
async fn how_a_write_ended_is_learnt_when_storage_works_again() {
    let Bench { documents, folder, .. } = Bench::new();
    let documents = Arc::new(documents);
    let applied = documents.writer.submit(|txn| txn.note_applied(Some(Seq(7)))).await;
    assert_eq!(applied, Ok(()));
    // The file has gone: it cannot be opened again.
    let path = folder.path().join(FILE);
    let aside = folder.path().join("aside");
    let failing = documents.writer.submit::<(), _>({
        let (path, aside) = (path.clone(), aside.clone());
        move |_| {
            for suffix in ["", "-wal", "-shm"] {
                let name = |path: &Path| format!("{}{suffix}", path.display());
                std::fs::rename(name(&path), name(&aside)).unwrap();
            }
            std::fs::create_dir(&path).unwrap();
            Err(rusqlite::Error::InvalidQuery)
        }
    });
    assert_eq!(failing.await, Err(StorageFailure::Unknown));
    let learnt = |admission| {
        let documents = documents.clone();
        tokio::spawn(async move { documents.outcome(Some(Seq(admission))).await })
    };
    let (there, lost) = (learnt(7), learnt(8));
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert!(!there.is_finished() && !lost.is_finished());
    std::fs::remove_dir(&path).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::rename(name(&aside), name(&path)).unwrap();
    }
    assert_eq!(there.await.unwrap(), WriteResult::Applied);
    assert_eq!(lost.await.unwrap(), WriteResult::NotApplied);
}
