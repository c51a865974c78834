//! What must not grow while nothing but time passes.

use std::fmt;

use tokio::runtime::Handle;

/// What is in use at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Resident memory of this process, in KiB.
    memory: u64,
    /// Sockets of this process.
    sockets: u64,
    /// Tasks of the control plane.
    plane_tasks: u64,
    /// Tasks of the worker.
    worker_tasks: u64,
}

impl Sample {
    /// What is in use now, with the tasks of these runtimes.
    pub(crate) fn take(plane: &Handle, worker: &Handle) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
        let is_socket = |link: &std::path::Path| link.to_string_lossy().starts_with("socket:");
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|it| it.path().read_link().ok());
        Self {
            memory: memory.trim().parse().unwrap(),
            sockets: links.filter(|link| is_socket(link)).count() as u64,
            plane_tasks: plane.metrics().num_alive_tasks() as u64,
            worker_tasks: worker.metrics().num_alive_tasks() as u64,
        }
    }
}

/// What was in use in the middle of a quarter, measure by measure.
struct Quarter([u64; 4]);

/// One measure: its name, and where it stands in a sample.
type Measure = (&'static str, fn(&Sample) -> u64);

const MEASURES: [Measure; 4] = [
    ("memory in KiB", |sample| sample.memory),
    ("sockets", |sample| sample.sockets),
    ("tasks of the control plane", |sample| sample.plane_tasks),
    ("tasks of the worker", |sample| sample.worker_tasks),
];
/// How much more of each may be in use in the last quarter than a tenth more than in the first. Of memory it is what
/// caches and the allocator take while they warm up.
const MARGINS: [u64; 4] = [64 * 1024, 16, 16, 16];

impl Quarter {
    fn of(samples: &[Sample]) -> Self {
        Self(MEASURES.map(|(_, of)| {
            let mut values: Vec<u64> = samples.iter().map(of).collect();
            values.sort_unstable();
            values[values.len() / 2]
        }))
    }
}

impl fmt::Display for Quarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = MEASURES.iter().zip(self.0).map(|((name, _), value)| format!("{value} {name}"));
        f.write_str(&told.collect::<Vec<_>>().join(", "))
    }
}

/// Fails when something has grown from the first quarter of the samples to the last.
pub(crate) fn nothing_has_grown(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    assert!(quarter >= 3, "too few samples: {}", samples.len());
    let first = Quarter::of(&samples[..quarter]);
    let last = Quarter::of(&samples[samples.len() - quarter..]);
    eprintln!("first quarter: {first}\nlast quarter:  {last}");
    for (at, (name, _)) in MEASURES.iter().enumerate() {
        let most = first.0[at] + first.0[at] / 10 + MARGINS[at];
        assert!(last.0[at] <= most, "{name} have grown from {} to {}", first.0[at], last.0[at]);
    }
}

#[test]
fn growth_is_noticed() {
    let calm = Sample { memory: 100_000, sockets: 100, plane_tasks: 50, worker_tasks: 50 };
    nothing_has_grown(&[calm; 20]);
    let mut samples = vec![calm; 15];
    samples.extend([Sample { sockets: 200, ..calm }; 5]);
    assert!(std::panic::catch_unwind(|| nothing_has_grown(&samples)).is_err());
    samples.truncate(15);
    samples.extend([Sample { memory: 300_000, ..calm }; 5]);
    assert!(std::panic::catch_unwind(|| nothing_has_grown(&samples)).is_err());
}
