//! What the command line can say.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser};
use l3l4_host::CongestionControl;
use l3l4_host::replay::Side;
use l3l4_host::tun::Cidr;
use tracing::level_filters::LevelFilter;

#[cfg(target_os = "linux")]
use super::proxy::{ProxyArgs, options::ProxyOptions};

/// Packet in, data out; data in, packet out: a TCP/IP engine as a WebAssembly
/// component, and a host to run it.
#[derive(Debug, Parser)]
#[command(name = "l3l4", version, after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Args {
    /// Log more or less: off, error, warn, info, debug, trace (or set L3L4_LOG).
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log: Option<LevelFilter>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  l3l4 demo                                    see it work, without root
  sudo l3l4 echo --tun l3l4 --address 10.9.0.1/24 -v
  nc 10.9.0.77 4242                            … and in another terminal
  sudo l3l4 proxy --tun l3l4 --address 10.9.0.1/24 --proxy socks5://127.0.0.1:1080
  l3l4 run -- curl https://example.org/        a program whose only network is the engine
  l3l4 component --output l3l4.wasm            for a host of your own
  l3l4 replay capture.pcapng --streams out     what every flow received, as files

Exit status:
  0  all went well (demo: every byte came back)
  1  something did not, and the message says what
  2  the command line cannot be understood";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Echo(EchoArgs),
    #[cfg(target_os = "linux")]
    Proxy(Box<ProxyArgs>),
    Replay(ReplayArgs),
    Component(ComponentArgs),
    #[cfg(target_os = "linux")]
    Run(RunArgs),
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    RunInside(RunInsideArgs),
}

/// Send real traffic through the engine and check every byte of what comes back.
///
/// Makes a network of its own that nobody else sees (a user and a network
/// namespace: no root needed), with a TUN device, the engine and an echo
/// application behind it. Then the kernel's own TCP, UDP and ping talk to it, over
/// IPv4 and IPv6. Where the system gives no namespace or no TUN device, it says
/// why and runs the same job with a client stack in memory.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  l3l4 demo                          the whole job, about 64 MiB each way and family
  l3l4 demo --size 1024 --mtu 1500   a gibibyte in packets of Ethernet's size
  l3l4 demo --json | jq .ok          for a program
  l3l4 demo --size 1 --pcap d.pcapng
  tshark -r d.pcapng                 … and its packets, one a line

Exit status:
  0  every byte came back as it was sent
  1  something did not; the table's reasons say what"
)]
pub(crate) struct DemoArgs {
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Bytes of the longest packet.
    #[arg(long, value_name = "BYTES", default_value_t = 65_535, value_parser = clap::value_parser!(u16).range(1280..))]
    pub(crate) mtu: u16,
    /// What limits the engine's data in flight beside the peer's window.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(crate) congestion_control: CongestionControlArg,
    /// Size of the largest transfer.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = RangedU64ValueParser::<u32>::new().range(1..=65_536))]
    pub(crate) size: u32,
    /// Use the client stack in memory at once, no namespace and no TUN device.
    #[arg(long)]
    pub(crate) in_memory: bool,
    /// Write all packets between the clients and the engine to a pcapng file.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
}

/// Echo every TCP and UDP flow that enters a TUN device, until interrupted.
///
/// The kernel keeps the address given and routes the others of its network here:
/// with 10.9.0.1/24 every one of 10.9.0.2 to 10.9.0.254 answers, on every port,
/// and to ping. Making the device takes CAP_NET_ADMIN.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  sudo l3l4 echo --tun l3l4 --address 10.9.0.1/24 --address fd00:9::1/64 -v
  nc 10.9.0.77 4242                  … and in another terminal
  ping fd00:9::abcd
  sudo l3l4 echo --tun l3l4 --address 10.9.0.1/24 --record run.l3l4
  l3l4 replay run.l3l4               … and afterwards: is every output the same?

  Without root, in a network of your own:
  unshare -Urn sh -c 'l3l4 echo --tun l3l4 --address 10.9.0.1/24 & sleep 1; ping -c 3 10.9.0.2; kill $!'

Exit status:
  0  interrupted by SIGINT or SIGTERM
  1  the device or the engine failed, or the record is not whole"
)]
pub(crate) struct EchoArgs {
    /// Name of the TUN interface.
    #[arg(long, value_name = "NAME")]
    pub(crate) tun: String,
    /// The kernel's address and the network around it; again for the other family.
    #[arg(long = "address", value_name = "CIDR", required = true)]
    pub(crate) addresses: Vec<Cidr>,
    /// Bytes of the longest packet.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..))]
    pub(crate) mtu: u16,
    /// What limits the engine's data in flight beside the peer's window.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(crate) congestion_control: CongestionControlArg,
    /// Write all that happens at the engine's border to this file, for l3l4 replay.
    /// It holds every packet in clear.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Print flows as they come and go.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print flows (with -v) and totals as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write all packets of the device to a pcapng file, as they pass.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
}

/// Run a program in a network of its own, which is the engine.
///
/// The program is in a user and network namespace (no root needed) whose only
/// interface leads to the engine. Every flow that it opens is dialled from here with
/// real sockets: a connection is accepted when the destination accepted it, and
/// refused when it was refused. Its names are resolved by this system's name servers.
/// It sees itself as the same user, with the same files; its loopback is its own.
/// Sockets of the Unix domain that have a path lead out, as all files do.
///
/// Signals that are sent here go to the program. Afterwards a summary on standard
/// error tells what it talked to; standard output is the program's alone.
#[cfg(target_os = "linux")]
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  l3l4 run -- curl https://example.org/
  l3l4 run --allow 10.0.0.0/8:443 -- ./agent
  l3l4 run --proxy socks5://127.0.0.1:1080 -- ssh example.org
  l3l4 run --pcap out.pcapng --record out.l3l4 -- ./test
  l3l4 run -v -- sh                  every flow, as it comes and goes

Exit status: the program's; 128 and the number of the signal that ended it;
  125  the namespace, the engine or the proxy failed, or the record is not whole
  126  the program cannot be run
  127  there is no such program"
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) proxy: ProxyOptions,
    /// Bytes of the longest packet. Nobody else sees these packets.
    #[arg(long, value_name = "BYTES", default_value_t = 65_535, value_parser = clap::value_parser!(u16).range(1280..))]
    pub(crate) mtu: u16,
    /// Write all packets of the program to a pcapng file, as they pass.
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Write all that happens at the engine's border to this file, for l3l4 replay.
    /// It holds every packet in clear.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Print flows as they come and go.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Another engine than the one in this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// Print no summary.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<OsString>,
}

/// The launcher of l3l4 run, which starts it: its standard input is the way to the
/// process that did.
#[cfg(target_os = "linux")]
#[derive(Debug, clap::Args)]
pub(crate) struct RunInsideArgs {
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Write the engine, the WebAssembly component that is embedded in this program.
///
/// Its world is l3l4:engine/l3l4@0.1.0; it imports nothing but that world's own
/// callbacks.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  l3l4 component                             writes l3l4.wasm
  l3l4 component --output - | sha256sum"
)]
pub(crate) struct ComponentArgs {
    /// The file to write; - is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "l3l4.wasm")]
    pub(crate) output: PathBuf,
}

/// Feed a capture (pcap, pcapng) to the engine, in the capture's own time; or
/// repeat a record (l3l4 echo --record) exactly, and compare every output.
///
/// Of each flow one side is fed: the one that opened it, or those that --peer
/// names. The engine speaks for the other side. Sequence numbers of that side are
/// not those of the captured server, so the fed acknowledgements are moved, and
/// the conversation goes through to its last byte. Flows whose start was not
/// captured are counted and left out. Time is that of the capture, so nothing is
/// waited for, and the same file gives the same transcript.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  l3l4 replay web.pcapng                           does it go through? the summary says
  l3l4 replay web.pcapng --streams out             what every flow received, as files
  l3l4 replay web.pcapng --peer 10.0.0.7:443       feed the server's side instead
  l3l4 replay web.pcapng --app echo --write e.pcapng
  l3l4 replay run.l3l4                             a record: is every output the same?
  l3l4 replay web.pcapng --transcript golden.txt   every call and callback …
  l3l4 replay web.pcapng --expect golden.txt       … and whether they are the same again

A script says what the application does with the flows of a port, in order:
  tcp 80
      after 16
      send \"HTTP/1.1 204 No Content\\r\\n\\r\\n\"
      wait 200ms
      finish
  udp
      echo
  any
      refuse reset
Steps: after BYTES|end, send \"TEXT\"|BYTES, wait TIME, echo, finish, abort, and as the
first one refuse reset|port-unreachable|host-unreachable|network-unreachable|prohibited, or drop.

Exit status:
  0  the whole capture was replayed, and the transcript is as expected;
     every output of the record, which may end early, is identical
  1  it is not, the file is damaged, or something failed; the message says what"
)]
pub(crate) struct ReplayArgs {
    /// The capture or record; - is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What the application does: captured, echo, discard, or script:FILE.
    #[arg(long, value_name = "APP", default_value = ReplayArgs::APP, help_heading = OF_CAPTURES)]
    pub(crate) app: String,
    /// Feed this side: ADDRESS, ADDRESS:PORT or a network; again for more.
    #[arg(long = "peer", value_name = "SIDE", help_heading = OF_CAPTURES)]
    pub(crate) peers: Vec<Side>,
    /// What is believed of the packets' checksums.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = ChecksumsArg::Detect, help_heading = OF_CAPTURES)]
    pub(crate) checksums: ChecksumsArg,
    /// Write the packets of both directions, as they were fed and sent.
    #[arg(long, value_name = "PCAPNG", help_heading = OF_CAPTURES)]
    pub(crate) write: Option<PathBuf>,
    /// Write every call and callback as text; - is standard output.
    #[arg(long, value_name = "TXT")]
    pub(crate) transcript: Option<PathBuf>,
    /// Write what each flow received to a file in this directory.
    #[arg(long, value_name = "DIR", help_heading = OF_CAPTURES)]
    pub(crate) streams: Option<PathBuf>,
    /// Compare the transcript with this one.
    #[arg(long, value_name = "TXT", help_heading = OF_CAPTURES)]
    pub(crate) expect: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// How far time goes on after the last packet while flows live.
    #[arg(long, value_name = "SECONDS", default_value_t = ReplayArgs::LINGER, help_heading = OF_CAPTURES)]
    pub(crate) linger: u32,
    /// Bytes of the longest packet that the engine sends.
    #[arg(long, value_name = "BYTES", default_value_t = ReplayArgs::MTU, value_parser = clap::value_parser!(u16).range(1280..), help_heading = OF_CAPTURES)]
    pub(crate) mtu: u16,
    /// What limits the engine's data in flight beside the peer's window.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = OF_CAPTURES)]
    pub(crate) congestion_control: CongestionControlArg,
    /// The engine's seed, up to 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", default_value = "0", help_heading = OF_CAPTURES)]
    pub(crate) seed: Seed,
    /// Another engine than the one in this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// Replay a record on another engine than it was made with, to see what differs.
    #[arg(long, help_heading = OF_RECORDS)]
    pub(crate) any_component: bool,
}

const OF_CAPTURES: &str = "Options of captures (a record has all this in it)";
const OF_RECORDS: &str = "Options of records";

impl ReplayArgs {
    const APP: &str = "captured";
    const LINGER: u32 = 120;
    const MTU: u16 = 1500;

    /// The options that are set and mean nothing to this kind of file. To pass over
    /// an `--expect` would be to say that the expectation holds.
    pub(crate) fn set_in_vain(&self, is_record: bool) -> Vec<&'static str> {
        let set = match is_record {
            false => vec![("--any-component", self.any_component)],
            true => vec![
                ("--app", self.app != Self::APP),
                ("--peer", !self.peers.is_empty()),
                ("--checksums", self.checksums != ChecksumsArg::Detect),
                ("--write", self.write.is_some()),
                ("--streams", self.streams.is_some()),
                ("--expect", self.expect.is_some()),
                ("--linger", self.linger != Self::LINGER),
                ("--mtu", self.mtu != Self::MTU),
                (
                    "--congestion-control",
                    self.congestion_control != CongestionControlArg::default(),
                ),
                ("--seed", self.seed != Seed([0; 32])),
            ],
        };
        let set = set.into_iter().filter(|(_, is_set)| *is_set);
        set.map(|(name, _)| name).collect()
    }
}

/// What limits the engine's data in flight beside the peer's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CongestionControlArg {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// Reno (RFC 5681).
    Reno,
    /// Nothing: for links that cannot congest.
    None,
}

impl From<CongestionControlArg> for CongestionControl {
    fn from(control: CongestionControlArg) -> Self {
        match control {
            CongestionControlArg::Cubic => Self::Cubic,
            CongestionControlArg::Reno => Self::Reno,
            CongestionControlArg::None => Self::None,
        }
    }
}

/// What is believed of the checksums in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChecksumsArg {
    /// Those that were left to a device are not verified, all others are.
    Detect,
    /// All are verified.
    Verify,
    /// None is.
    Ignore,
}

/// 32 bytes in hexadecimal digits; those that are missing in front are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) [u8; 32]);

impl FromStr for Seed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "a seed is 1 to 64 hexadecimal digits";
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WHY);
        }
        let digits = format!("{text:0>64}");
        let mut seed = [0; 32];
        for (at, byte) in seed.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| WHY)?;
        }
        Ok(Self(seed))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, Command, CongestionControl};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    /// IPv6 wants 1,280 (RFC 8200 5), and so does the contract.
    #[test]
    fn an_mtu_that_no_engine_takes_is_refused_at_once() {
        for command in [
            &["echo", "--tun", "t", "--address", "10.9.0.1/24"][..],
            &["demo"],
            &["replay", "file"],
        ] {
            let with = |mtu| {
                let line = [&["l3l4"], command, &["--mtu", mtu]].concat();
                Args::try_parse_from(line).is_ok()
            };
            assert!(with("1280") && !with("1279"), "{command:?}");
        }
    }

    #[test]
    fn congestion_control_is_read_by_its_name() {
        let read = |name| {
            let line = ["l3l4", "demo", "--congestion-control", name];
            Args::try_parse_from(line).map(|args| match args.command {
                Command::Demo(demo) => CongestionControl::from(demo.congestion_control),
                other => panic!("{other:?}"),
            })
        };
        for (name, control) in [
            ("cubic", CongestionControl::Cubic),
            ("reno", CongestionControl::Reno),
            ("none", CongestionControl::None),
        ] {
            assert_eq!(read(name).unwrap(), control);
        }
        assert!(read("vegas").is_err());
    }
}
