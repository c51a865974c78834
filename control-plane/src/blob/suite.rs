//! What every place for bodies does, over a folder and over a bucket of a real server that speaks S3, and what a bucket
//! does when its server misbehaves.

use std::time::Duration;

use futures::TryStreamExt as _;
use postroom_testbed::bucket::{BUCKET, Bucket, Fault};
use postroom_testbed::link::Link;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::choice::{REGION, endpoint};
use super::*;

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// `size` bytes that no other seed makes.
fn body(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

async fn store(blobs: &Blobs, body: &[u8]) -> Result<(), Error> {
    let mut upload = blobs.upload(&digest(body), body.len() as u64).await?;
    for piece in body.chunks(256 * 1024) {
        upload.push(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish().await
}

async fn read(blobs: &Blobs, digest: &str) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = blobs.read(digest).await?.try_collect().await?;
    Ok(pieces.concat())
}

fn settings(server: &str, bucket: &Bucket) -> S3Settings {
    S3Settings {
        bucket: BUCKET.into(),
        prefix: "teams/one".into(),
        endpoint: Some(endpoint(server).unwrap()),
        region: REGION.into(),
        access_key: bucket.access_key().into(),
        secret_key: bucket.secret_key().into(),
        ca_file: None,
        insecure: false,
    }
}

/// A bucket, and the bodies in it.
async fn bucket() -> (Bucket, Blobs, TempDir) {
    let (bucket, folder) = (Bucket::start().await.unwrap(), tempfile::tempdir().unwrap());
    let blobs = Blobs::bucket(&settings(&bucket.endpoint(), &bucket), folder.path()).await.unwrap();
    (bucket, blobs, folder)
}

async fn a_body_comes_back_as_it_went_in(blobs: &Blobs) {
    // Of less than a part, of a part, and of several with a rest.
    for (size, seed) in [(0, 1), (1, 2), (3_000_000, 3), (5 * MIB, 4), (13_000_001, 5)] {
        let body = body(size, seed);
        for _ in 0..2 {
            store(blobs, &body).await.unwrap();
        }
        assert_eq!(blobs.size(&digest(&body)).await.unwrap(), Some(size as u64));
        assert!(blobs.contains(&digest(&body)).await.unwrap());
        assert!(read(blobs, &digest(&body)).await.unwrap() == body, "of {size} bytes");
    }
}

async fn a_range_is_what_is_there(blobs: &Blobs) {
    let body = body(6_000_000, 6);
    store(blobs, &body).await.unwrap();
    for range in [0..10, 5_242_870..5_242_890, 5_999_990..7_000_000] {
        let pieces: Vec<Bytes> =
            blobs.read_range(&digest(&body), range.clone()).await.unwrap().try_collect().await.unwrap();
        let (from, to) = (range.start as usize, (range.end as usize).min(body.len()));
        assert!(pieces.concat() == body[from..to], "{range:?}");
    }
    assert!(blobs.read_range(&digest(&body), 6_000_001..6_000_002).await.is_err());
}

async fn what_is_not_as_announced_leaves_nothing(blobs: &Blobs) {
    for size in [5, 6 * MIB] {
        let body = body(size, 7);
        let announced = digest(&body);
        let mut short = blobs.upload(&announced, size as u64).await.unwrap();
        short.push(Bytes::copy_from_slice(&body[1..])).await.unwrap();
        assert!(matches!(short.finish().await, Err(Error::Invalid(_))));
        let mut other = blobs.upload(&announced, size as u64).await.unwrap();
        other.push(vec![0; size].into()).await.unwrap();
        assert!(matches!(other.finish().await, Err(Error::Invalid(_))));
        let mut long = blobs.upload(&announced, size as u64).await.unwrap();
        assert!(matches!(long.push(vec![0; size + 1].into()).await, Err(Error::Invalid(_))));
        long.abort().await;
        drop(blobs.upload(&announced, size as u64).await.unwrap());
        assert!(!blobs.contains(&announced).await.unwrap());
        assert!(matches!(blobs.read(&announced).await, Err(Error::Missing(_))));
    }
}

async fn so_many_come_in_at_one_time(blobs: &Blobs) {
    let mut uploads = Vec::new();
    for number in 0..UPLOADS {
        uploads.push(blobs.upload(&digest(&number.to_be_bytes()), 8).await.unwrap());
    }
    let another = digest(b"another");
    assert!(timeout(Duration::from_millis(200), blobs.upload(&another, 7)).await.is_err(), "it waits for its turn");
    uploads.pop();
    timeout(PATIENCE, blobs.upload(&another, 7)).await.unwrap().unwrap().abort().await;
}

async fn run(blobs: &Blobs) {
    a_body_comes_back_as_it_went_in(blobs).await;
    a_range_is_what_is_there(blobs).await;
    what_is_not_as_announced_leaves_nothing(blobs).await;
    so_many_come_in_at_one_time(blobs).await;
}

#[tokio::test]
async fn a_folder_does_what_every_place_does() {
    let folder = tempfile::tempdir().unwrap();
    run(&Blobs::folder(folder.path()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_does_what_every_place_does() {
    let (bucket, blobs, folder) = bucket().await;
    run(&blobs).await;
    assert!(folder.path().read_dir().unwrap().next().is_none(), "nothing of it is in the folder");
    let written = bucket.requests();
    let puts = written.iter().filter(|request| request.starts_with("PUT"));
    assert!(puts.into_iter().all(|put| put.contains("/postroom/teams/one/")), "{written:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_the_folder_is_found_beside_the_bucket() {
    let (bucket, blobs, folder) = bucket().await;
    let body = body(2_000_000, 8);
    store(&Blobs::folder(folder.path()).unwrap(), &body).await.unwrap();
    let before = bucket.requests().len();
    assert!(read(&blobs, &digest(&body)).await.unwrap() == body);
    assert_eq!(blobs.size(&digest(&body)).await.unwrap(), Some(2_000_000));
    assert_eq!(bucket.requests().len(), before, "nobody asked the bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_busy_is_asked_again_and_a_lost_answer_does_no_harm() {
    let (bucket, blobs, _folder) = bucket().await;
    let body = body(11_000_000, 9);
    // One for each step of an upload: the beginning, a part, the end.
    for (method, fault) in [
        ("POST", Fault::SlowDown),
        ("PUT", Fault::SlowDown),
        ("PUT", Fault::Internal),
        ("PUT", Fault::Lost),
        ("GET", Fault::SlowDown),
        ("HEAD", Fault::Internal),
    ] {
        bucket.fail(1, method, fault);
    }
    store(&blobs, &body).await.unwrap();
    assert!(blobs.contains(&digest(&body)).await.unwrap());
    assert!(read(&blobs, &digest(&body)).await.unwrap() == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_end_of_an_upload_is_found_out_by_whoever_tries_again() {
    let (bucket, blobs, _folder) = bucket().await;
    let body = body(11_000_000, 10);
    let mut upload = blobs.upload(&digest(&body), body.len() as u64).await.unwrap();
    upload.push(body.clone().into()).await.unwrap();
    bucket.fail(1, "POST", Fault::Lost);
    // Its second try may meet an upload that is no more; the body is there all the same.
    let _ = upload.finish().await;
    assert!(blobs.contains(&digest(&body)).await.unwrap());
    store(&blobs, &body).await.unwrap();
    assert!(read(&blobs, &digest(&body)).await.unwrap() == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_busy_is_given_up_in_bounded_time_and_named() {
    let (bucket, blobs, _folder) = bucket().await;
    let body = body(1_000_000, 11);
    bucket.fail(1000, "PUT", Fault::SlowDown);
    let began = Instant::now();
    let before = bucket.requests().len();
    let error = timeout(PATIENCE, store(&blobs, &body)).await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("s3://postroom/teams/one failed to finish a body: SlowDown"), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(60) && bucket.requests().len() - before <= 8,
        "it is not asked for ever"
    );
    assert!(!blobs.contains(&digest(&body)).await.unwrap());
    bucket.heal();
    store(&blobs, &body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_in_the_middle_leaves_nothing_and_the_next_try_succeeds() {
    let bucket = Bucket::start().await.unwrap();
    let link = Link::start(bucket.addr()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let there = settings(&format!("http://{}", link.addr()), &bucket);
    let blobs = Blobs::bucket(&there, folder.path()).await.unwrap();
    let body = body(16_000_000, 12);
    for silent in [false, true] {
        let mut upload = blobs.upload(&digest(&body), body.len() as u64).await.unwrap();
        upload.push(Bytes::copy_from_slice(&body[..6_000_000])).await.unwrap();
        if silent {
            link.set_silent(true)
        } else {
            link.set_refusing(true)
        }
        let rest = async {
            for piece in body[6_000_000..].chunks(256 * 1024) {
                upload.push(Bytes::copy_from_slice(piece)).await?;
            }
            upload.finish().await
        };
        let error = timeout(PATIENCE, rest).await.expect("it ends").unwrap_err();
        assert!(matches!(error, Error::Bucket { .. }), "{error}");
        link.heal();
        assert!(!blobs.contains(&digest(&body)).await.unwrap());
    }
    store(&blobs, &body).await.unwrap();
    assert!(read(&blobs, &digest(&body)).await.unwrap() == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_to_mend_shows_at_the_start() {
    let (bucket, _blobs, folder) = bucket().await;
    let good = settings(&bucket.endpoint(), &bucket);
    let tried = async |settings: S3Settings| Blobs::bucket(&settings, folder.path()).await.unwrap_err();

    let error = tried(S3Settings { bucket: "nobodys".into(), ..good.clone() }).await;
    assert!(matches!(error, Error::Refused(Refused::NoBucket { .. })), "{error:?}");
    assert!(error.to_string().contains("create it") && error.to_string().contains("nobodys"), "{error}");

    for wrong in [
        S3Settings { secret_key: "geheim".into(), ..good.clone() },
        S3Settings { access_key: "AKIANOBODY".into(), ..good.clone() },
    ] {
        let error = tried(wrong).await;
        assert!(matches!(error, Error::Refused(Refused::Access { .. })), "{error:?}");
        assert!(!error.to_string().contains("geheim"), "{error}");
    }

    let missing = S3Settings { ca_file: Some("/nowhere.pem".into()), ..good.clone() };
    assert!(matches!(tried(missing).await, Error::Refused(Refused::CaFile { .. })));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = tried(S3Settings { ca_file: Some(empty.path().into()), ..good }).await;
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_no_reason_not_to_start() {
    let bucket = Bucket::start().await.unwrap();
    let link = Link::start(bucket.addr()).await.unwrap();
    let there = settings(&format!("http://{}", link.addr()), &bucket);
    let folder = tempfile::tempdir().unwrap();
    for silent in [false, true] {
        if silent {
            link.set_silent(true)
        } else {
            link.set_refusing(true)
        }
        let blobs = timeout(PATIENCE, Blobs::bucket(&there, folder.path())).await.unwrap().unwrap();
        link.heal();
        let body = body(1000, 13 + u32::from(silent));
        store(&blobs, &body).await.unwrap();
        assert!(blobs.contains(&digest(&body)).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_removed_is_not_taken_for_a_missing_body() {
    let (bucket, blobs, _folder) = bucket().await;
    bucket.fail(1, "GET", Fault::NoBucket);
    let error = blobs.read(&digest(b"x")).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Bucket { why, .. } if why.contains("NoSuchBucket")), "{error:?}");
}
