//! The component: its bytes, compiled when an engine first needs them.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sha2::{Digest, Sha256};
use wasmtime::Config;
use wasmtime::component::Component as Code;

use crate::error::Error;
use crate::ticker::Ticker;

/// The component that the build script made from `guest/`.
pub static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/l3l4.component.wasm"));

/// A component of the world `l3l4`: the embedded one or another that keeps the
/// contract. Cheap to clone; clones share what is compiled.
#[derive(Clone)]
pub struct Component {
    shared: Arc<Shared>,
}

struct Shared {
    bytes: Cow<'static, [u8]>,
    sha256: OnceLock<[u8; 32]>,
    plain: Mutex<Option<Compiled>>,
    interruptible: Mutex<Option<Interruptible>>,
}

/// Machine code, with the runtime that it belongs to.
pub(crate) type Compiled = Code;

struct Interruptible {
    code: Compiled,
    ticker: Weak<Ticker>,
}

impl Component {
    /// The component in [`EMBEDDED`]. It is compiled once in a process.
    #[must_use]
    pub fn embedded() -> Self {
        static SHARED: LazyLock<Component> =
            LazyLock::new(|| Component::new(Cow::Borrowed(EMBEDDED)));
        SHARED.clone()
    }

    /// A component in binary form. It is compiled when the first engine is built,
    /// or by [`compile`](Self::compile).
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Cow::Owned(bytes.into()))
    }

    /// A component in a file, in binary form.
    ///
    /// # Errors
    ///
    /// [`Error::ComponentFile`] when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self::from_bytes(bytes)),
            Err(source) => Err(Error::ComponentFile {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn new(bytes: Cow<'static, [u8]>) -> Self {
        Self {
            shared: Arc::new(Shared {
                bytes,
                sha256: OnceLock::new(),
                plain: Mutex::new(None),
                interruptible: Mutex::new(None),
            }),
        }
    }

    /// The component in binary form.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.shared.bytes
    }

    /// The SHA-256 of [`bytes`](Self::bytes), by which a record names its component.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let hash = || Sha256::digest(self.bytes()).into();
        *self.shared.sha256.get_or_init(hash)
    }

    /// Compiles ahead of the first engine without a time limit on its calls.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] when the bytes are no valid component.
    pub fn compile(&self) -> Result<(), Error> {
        self.plain().map(drop)
    }

    pub(crate) fn plain(&self) -> Result<Compiled, Error> {
        let mut plain = lock(&self.shared.plain);
        if let Some(code) = &*plain {
            return Ok(code.clone());
        }
        let code = compile(self.bytes(), false)?;
        Ok(plain.insert(code).clone())
    }

    /// Code that looks at the epoch in every loop and function, and the ticker
    /// that moves the epoch on.
    pub(crate) fn interruptible(&self) -> Result<(Compiled, Arc<Ticker>), Error> {
        let mut interruptible = lock(&self.shared.interruptible);
        let shared = match &mut *interruptible {
            Some(shared) => shared,
            None => interruptible.insert(Interruptible {
                code: compile(self.bytes(), true)?,
                ticker: Weak::new(),
            }),
        };
        let ticker = match shared.ticker.upgrade() {
            Some(ticker) => ticker,
            None => Ticker::start(shared.code.engine()).map_err(Error::System)?,
        };
        shared.ticker = Arc::downgrade(&ticker);
        Ok((shared.code.clone(), ticker))
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("bytes", &self.bytes().len())
            .finish_non_exhaustive()
    }
}

fn compile(bytes: &[u8], interruptible: bool) -> Result<Compiled, Error> {
    let started = std::time::Instant::now();
    let mut config = Config::new();
    // A call costs 220 ns so, and 650 ns with what asynchronous components need.
    config.concurrency_support(false);
    config.epoch_interruption(interruptible);
    // The guest carries no names that a backtrace could show.
    config.wasm_backtrace_max_frames(None);
    let runtime = wasmtime::Engine::new(&config).map_err(|error| Error::Component(error.into()))?;
    let code =
        Code::from_binary(&runtime, bytes).map_err(|error| Error::Component(error.into()))?;
    tracing::debug!(bytes = bytes.len(), interruptible, elapsed = ?started.elapsed(), "component compiled");
    Ok(code)
}

/// What the locks guard is written whole or not at all, so a panic elsewhere
/// leaves it sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
