//! Errands from a desk that is played here.

use std::sync::Mutex;

use async_trait::async_trait;

use postroom_proto::v1::CheckTask;

use super::*;
use crate::config::Reading;
use crate::mailbox::session::Shared;
use crate::mailbox::status::Board;
use crate::report::nobody::Nobody;

const PATIENCE: Duration = Duration::from_secs(30);

/// Gives out what it holds, one by one, and notes what is reported.
#[derive(Default)]
struct Table {
    errands: Mutex<Vec<v1::Errand>>,
    reports: Mutex<Vec<v1::ReportErrandRequest>>,
    /// Answers of reports that are lost, before one is given.
    lost: Mutex<usize>,
}

#[async_trait]
impl Desk for Table {
    async fn take(&self, _: &str) -> Result<Vec<v1::Errand>, Error> {
        let next = self.errands.lock().unwrap().pop();
        match next {
            Some(errand) => Ok(vec![errand]),
            None => std::future::pending().await,
        }
    }

    async fn report(&self, request: v1::ReportErrandRequest) -> Result<(), Error> {
        self.reports.lock().unwrap().push(request);
        let mut lost = self.lost.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(Error::Unavailable("the answer was lost".into()));
        }
        Ok(())
    }
}

fn shared() -> Shared {
    Shared::new(Reading::default(), Arc::new(Nobody), Arc::new(Board::new()))
}

fn errand(id: &str, task: Option<Task>) -> v1::Errand {
    v1::Errand { id: id.into(), task, time_left: Some(to_duration(PATIENCE)), ..v1::Errand::default() }
}

/// Runs until so many reports were made.
async fn reports(table: &Arc<Table>, count: usize) -> Vec<v1::ReportErrandRequest> {
    let (session, sessions) = watch::channel(String::new());
    let told = CancellationToken::new();
    let running =
        tokio::spawn(Errands::new(table.clone(), Sending::new(shared(), Duration::ZERO), sessions).run(told.clone()));
    session.send("s".into()).unwrap();
    let enough = async {
        while table.reports.lock().unwrap().len() < count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, enough).await.unwrap();
    told.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
    table.reports.lock().unwrap().clone()
}

#[tokio::test]
async fn an_errand_that_is_not_known_ends_with_a_problem_and_others_go_on() {
    let table = Arc::new(Table::default());
    table.errands.lock().unwrap().extend([errand("1", None), errand("2", None)]);
    let told = reports(&table, 2).await;
    for report in told {
        assert_eq!((report.session.as_str(), report.sequence, report.ended), ("s", 1, true));
        assert_eq!(report.problem.unwrap().code, "ERRAND_UNKNOWN");
    }
}

#[tokio::test]
async fn a_report_whose_answer_was_lost_is_made_again_with_its_number() {
    let table = Arc::new(Table::default());
    *table.lost.lock().unwrap() = 2;
    table.errands.lock().unwrap().push(errand("1", None));
    let told = reports(&table, 3).await;
    assert!(told.iter().all(|report| report.sequence == 1), "{told:?}");
}
#[tokio::test]
async fn a_panic_ends_the_errand_with_a_defect() {
    struct Panics;
    #[async_trait]
    impl Desk for Panics {
        async fn take(&self, _: &str) -> Result<Vec<v1::Errand>, Error> {
            std::future::pending().await
        }

        async fn report(&self, request: v1::ReportErrandRequest) -> Result<(), Error> {
            assert!(request.ended, "a planted panic");
            assert_eq!(request.problem.unwrap().code, "DEFECT");
            Ok(())
        }
    }
    let findings = Findings { desk: Arc::new(Panics), session: "s".into(), errand: "1".into(), sequence: 0 };
    let room = Arc::new(Semaphore::new(1));
    let errand = errand("1", Some(Task::Check(CheckTask {})));
    let done = carry_out(Sending::new(shared(), Duration::ZERO), errand, findings, room.clone());
    timeout(PATIENCE, Box::pin(done)).await.unwrap();
    assert_eq!(room.available_permits(), 1, "its place is free again");
}
