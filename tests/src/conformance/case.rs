//! One conformance case, and what becomes of it on both devices under test. A panic
//! or a trap is the failure of the case, not of the run.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use l3l4_engine::Config;

use crate::component::Component;
use crate::conformance::exchange::{Exchange, Failure};
use crate::craft::{FAMILIES, Family};
use crate::dut::{Dut, Native};
use crate::scene::{Scene, config, native_only};
use crate::trace::Trace;

/// A row of the table: what to do, and where it is demanded.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its number.
    pub number: u16,
    /// The sections that demand it, without the word RFC.
    pub rfc: &'static str,
    /// What is demanded, in one line.
    pub title: &'static str,
    /// Where it makes sense.
    pub families: &'static [Family],
    story: fn(&mut Exchange<'_>),
    change: fn(&mut Config),
}

impl Case {
    /// A case for IPv4 and IPv6 with the default configuration.
    #[must_use]
    pub const fn new(
        number: u16,
        rfc: &'static str,
        title: &'static str,
        story: fn(&mut Exchange<'_>),
    ) -> Self {
        Self {
            number,
            rfc,
            title,
            families: &FAMILIES,
            story,
            change: |_| (),
        }
    }

    /// For IPv4 only.
    #[must_use]
    pub const fn v4(mut self) -> Self {
        self.families = &[Family::V4];
        self
    }

    /// For IPv6 only.
    #[must_use]
    pub const fn v6(mut self) -> Self {
        self.families = &[Family::V6];
        self
    }

    /// With another configuration.
    #[must_use]
    pub const fn with(mut self, change: fn(&mut Config)) -> Self {
        self.change = change;
        self
    }

    /// Runs it on the native engine and on the component, whose traces have to be
    /// equal.
    #[must_use]
    pub fn run(&self, family: Family) -> Outcome {
        catch_messages();
        let mut config = config();
        (self.change)(&mut config);
        let dut = Box::new(Native::new(config).expect("in bounds"));
        let native = self.tell(dut, family);
        if native_only() {
            return Outcome {
                reason: native.reason,
                divergence: None,
                transcript: native.transcript,
            };
        }
        let component = self.tell(Box::new(Component::new(&config)), family);
        // A trap leaves another trace than a panic, so a crash is not compared.
        let divergence = match native.crashed || component.crashed {
            true => None,
            false => native.trace.difference(&component.trace),
        };
        let reason = match (native.reason, component.reason) {
            (Some(native), Some(component)) if native != component => {
                Some(format!("native: {native}; component: {component}"))
            }
            (Some(reason), _) => Some(reason),
            (None, Some(component)) => Some(format!("component only: {component}")),
            (None, None) => None,
        };
        Outcome {
            reason,
            divergence,
            transcript: native.transcript,
        }
    }

    fn tell(&self, dut: Box<dyn Dut>, family: Family) -> Telling {
        let mut scene = Scene::new(dut);
        let mut exchange = Exchange::new(&mut scene, family);
        let told = catch_unwind(AssertUnwindSafe(|| (self.story)(&mut exchange)));
        let transcript = exchange.into_transcript();
        let told = told.and_then(|()| catch_unwind(AssertUnwindSafe(|| scene.close_the_books())));
        let (reason, crashed) = match told {
            Ok(()) => (None, false),
            Err(payload) => reason(&*payload),
        };
        Telling {
            reason,
            crashed,
            trace: std::mem::take(&mut scene.host().trace),
            transcript,
        }
    }
}

/// What became of a case in one family.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first expectation that failed; none when the case passed.
    pub reason: Option<String>,
    /// Where the native trace and the component's part, which nothing excuses.
    pub divergence: Option<String>,
    /// The exchange.
    pub transcript: Vec<String>,
}

impl Outcome {
    /// Whether all went as demanded, on both devices alike.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.reason.is_none() && self.divergence.is_none()
    }
}

/// What became of a case on one device.
struct Telling {
    reason: Option<String>,
    crashed: bool,
    trace: Trace,
    transcript: Vec<String>,
}

thread_local! {
    static MESSAGE: RefCell<Option<(String, bool)>> = const { RefCell::new(None) };
}

/// Panics of cases are kept as their reason and not printed.
fn catch_messages() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let text = info.payload_as_str().unwrap_or("a panic without words");
            let place = info.location();
            let line = text.lines().next().unwrap_or_default();
            let inside = place.is_some_and(|place| {
                let file = place.file();
                file.contains("guest/engine") || file.contains("smoltcp")
            });
            let crashed = inside || line.contains("the guest trapped");
            let what = if crashed { "CRASH" } else { "rule broken" };
            let place = place.map(ToString::to_string).unwrap_or_default();
            let place = place.rsplit('/').next().unwrap_or_default();
            let message = format!("{what} at {place}: {line}");
            MESSAGE.set(Some((message, crashed)));
        }));
    });
}

/// The reason, and whether the engine crashed.
fn reason(payload: &(dyn Any + Send)) -> (Option<String>, bool) {
    if let Some(Failure(reason)) = payload.downcast_ref() {
        return (Some(reason.clone()), false);
    }
    let (message, crashed) = MESSAGE
        .take()
        .unwrap_or_else(|| ("a panic without words".into(), true));
    (Some(message), crashed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::exchange::ms;
    use crate::conformance::segment::{rst, syn, syn_ack};

    #[test]
    fn a_case_passes_on_both_devices() {
        let case = Case::new(1, "9293", "a SYN is answered", |x| {
            x.inject(syn());
            x.expect(syn_ack().ack(1));
        });
        for family in FAMILIES {
            let outcome = case.run(family);
            assert_eq!((outcome.reason, outcome.divergence), (None, None));
        }
    }

    #[test]
    fn a_failed_expectation_is_told_with_the_exchange() {
        let case = Case::new(1, "9293", "a SYN is reset", |x| {
            x.inject(syn());
            x.expect_within(ms(10), rst());
        });
        let outcome = case.run(Family::V4);
        let reason = outcome.reason.expect("it fails");
        assert!(reason.starts_with("expected R; S. 0:1(0)"), "{reason}");
        let [.., sent, failed] = &outcome.transcript[..] else {
            panic!("{:?}", outcome.transcript);
        };
        assert!(sent.contains("0.000 > S. 0:1(0) ack 1"), "{sent}");
        assert!(failed.contains("FAILED at case.rs"), "{failed}");
    }

    #[test]
    fn a_panic_is_the_reason_of_the_case() {
        let case = Case::new(1, "9293", "panics", |_| panic!("on purpose"));
        let outcome = case.run(Family::V6);
        let reason = outcome.reason.expect("it fails");
        assert!(reason.starts_with("rule broken at case.rs"), "{reason}");
        assert!(reason.ends_with(": on purpose"), "{reason}");
    }
}
