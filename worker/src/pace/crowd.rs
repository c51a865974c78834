//! Whether mailboxes that are given at once begin together or each at a moment of its own. Pure.
//!
//! A fleet that starts must not begin as one. Whoever takes over from a worker that died must not make mail wait.

/// Tells the first mailboxes of a process from those that come later.
#[derive(Debug)]
pub struct Crowd {
    burst: usize,
    met: bool,
}

impl Crowd {
    /// A process that has nothing yet. Up to `burst` may begin at once.
    pub fn new(burst: usize) -> Self {
        Self { burst, met: false }
    }

    /// So many are to be opened now. True: each at a random moment, because they are the first that this process is given
    /// and more than the burst.
    pub fn is_one(&mut self, opens: usize) -> bool {
        let first = !self.met && opens > 0;
        self.met |= first;
        first && opens > self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_are_a_crowd() {
        let mut crowd = Crowd::new(50);
        assert!(!crowd.is_one(0), "an answer without mailboxes is none");
        assert!(crowd.is_one(51));
        assert!(!crowd.is_one(51), "these were another worker's");
    }

    #[test]
    fn a_few_are_none_and_those_after_them_neither() {
        let mut crowd = Crowd::new(50);
        assert!(!crowd.is_one(50));
        assert!(!crowd.is_one(1000));
    }
}
