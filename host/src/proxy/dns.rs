//! DNS answered here: every name has an address of the pool, which stands for it
//! when a flow comes (RFC 1035).

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::names::Names;

/// How long an answer may be kept: a name is forgotten long after that.
const TTL_SECONDS: u32 = 60;

/// The answer to a query; `None` for what is no query.
pub(super) fn answer(query: &[u8], names: &mut Names) -> Option<Vec<u8>> {
    let header = Header::read(query).filter(|header| !header.is_response)?;
    let mut reply = Packet::new_reply(header.id);
    // A query has one question, and an OPT record or a signature.
    let parsed = (header.records <= 4).then(|| Packet::parse(query).ok());
    let Some(query) = parsed.flatten() else {
        *reply.rcode_mut() = RCODE::NotImplemented;
        return reply.build_bytes_vec().ok();
    };
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.rcode_mut() = match (query.opcode(), query.questions.as_slice()) {
        (OPCODE::StandardQuery, [question]) => {
            let code = resolve(question, names, &mut reply);
            reply.questions.push(question.clone());
            code
        }
        (OPCODE::StandardQuery, _) => RCODE::FormatError,
        _ => RCODE::NotImplemented,
    };
    reply.build_bytes_vec_compressed().ok()
}

/// What stands first in a message (RFC 1035 4.1.1), which can be read of messages
/// that are not understood too.
struct Header {
    id: u16,
    is_response: bool,
    /// Of all sections.
    records: u32,
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        let header: &[u8; 12] = message.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self {
            id: word(0),
            is_response: header[2] & 0x80 != 0,
            records: [4, 6, 8, 10].map(|at| u32::from(word(at))).iter().sum(),
        })
    }
}

/// Adds the addresses that stand for the name. A name has addresses and nothing
/// else here: any other question has an answer without records.
fn resolve<'a>(question: &Question<'a>, names: &mut Names, reply: &mut Packet<'a>) -> RCODE {
    if question.qclass != QCLASS::CLASS(CLASS::IN) && question.qclass != QCLASS::ANY {
        return RCODE::Refused;
    }
    let name = question.qname.to_string().to_ascii_lowercase();
    if !can_be_dialled(&name) {
        return RCODE::NameError;
    }
    let data = match question.qtype {
        QTYPE::TYPE(TYPE::A) => RData::A(A::from(names.addresses(&name).0)),
        QTYPE::TYPE(TYPE::AAAA) => RData::AAAA(AAAA::from(names.addresses(&name).1)),
        _ => return RCODE::NoError,
    };
    reply.answers.push(ResourceRecord::new(
        question.qname.clone(),
        CLASS::IN,
        TTL_SECONDS,
        data,
    ));
    RCODE::NoError
}

/// Whether it may be the name of a host elsewhere: letters, digits, `-`, `_` and dots
/// (RFC 1123 2.1; names with `_` are in use), and not of a zone that no resolver asks
/// others about: addresses' names, this host's (RFC 6761 6.3, 6.4), the link's
/// (RFC 6762). Nor an address in any of the forms that an upstream's resolver may read
/// as one (`127.1`, `0x7f.1`, inet_aton(3)): a rule about addresses would not see it. No
/// name's last label is a number (RFC 3696 2).
fn can_be_dialled(name: &str) -> bool {
    let of_hosts = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let here = ["arpa", "localhost", "invalid", "local"];
    let last = name.rsplit('.').next().unwrap_or_default();
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(of_hosts)
        && !here.contains(&last)
        && !is_number(last)
}

/// Decimal and octal, or hexadecimal.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::RData;
    use simple_dns::{
        CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    };

    use super::{Names, answer};

    fn query(name: &str, what: TYPE) -> Vec<u8> {
        let mut query = Packet::new_query(0x1234);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(
            Name::new(name).unwrap(),
            QTYPE::TYPE(what),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        query.build_bytes_vec().unwrap()
    }

    /// The code and the addresses of an answer.
    fn ask(names: &mut Names, name: &str, what: TYPE) -> (RCODE, Vec<String>) {
        let bytes = answer(&query(name, what), names).unwrap();
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!(reply.id(), 0x1234);
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!(reply.questions.len(), 1);
        let address = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
            other => panic!("{other:?}"),
        };
        (reply.rcode(), reply.answers.iter().map(address).collect())
    }

    #[test]
    fn a_name_has_an_address_of_each_family() {
        let mut names = Names::new();
        let (code, v4) = ask(&mut names, "Example.ORG", TYPE::A);
        assert_eq!((code, v4[0].as_str()), (RCODE::NoError, "198.18.0.1"));
        let (_, v6) = ask(&mut names, "example.org", TYPE::AAAA);
        assert_eq!(v6, ["fd6c:336c:3400::1"]);
        let address = "198.18.0.1".parse().unwrap();
        assert_eq!(names.name(address).unwrap().as_deref(), Some("example.org"));
    }

    #[test]
    fn other_records_there_are_none_of() {
        let mut names = Names::new();
        for what in [TYPE::MX, TYPE::TXT, TYPE::Unknown(65), TYPE::SVCB] {
            assert_eq!(ask(&mut names, "example.org", what).1, [""; 0], "{what:?}");
        }
    }

    #[test]
    fn names_that_nobody_else_knows_do_not_exist() {
        let mut names = Names::new();
        for name in [
            "localhost",
            "a.localhost",
            "x.invalid",
            "printer.local",
            "1.2.0.192.in-addr.arpa",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "example.0x7f",
        ] {
            let (code, addresses) = ask(&mut names, name, TYPE::A);
            assert_eq!((code, addresses.len()), (RCODE::NameError, 0), "{name}");
        }
    }

    /// curl's and glibc's queries carry an OPT record (RFC 6891).
    #[test]
    fn a_query_with_edns_is_answered() {
        let mut bytes = query("example.org", TYPE::A);
        bytes[11] = 1;
        bytes.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        let reply = answer(&bytes, &mut Names::new()).unwrap();
        assert_eq!(Packet::parse(&reply).unwrap().answers.len(), 1);
    }

    /// The type that no library knows, and the message that claims what is not there.
    #[test]
    fn a_query_that_is_not_understood_is_answered_so() {
        let mut unknown = query("example.org", TYPE::A);
        let at = unknown.len() - 4;
        unknown[at..at + 2].copy_from_slice(&999_u16.to_be_bytes());
        let mut claims = query("example.org", TYPE::A);
        claims[6..12].fill(0xff);
        for bytes in [unknown, claims] {
            let reply = answer(&bytes, &mut Names::new()).unwrap();
            let reply = Packet::parse(&reply).unwrap();
            assert_eq!((reply.id(), reply.rcode()), (0x1234, RCODE::NotImplemented));
        }
    }

    #[test]
    fn what_is_no_query_has_no_answer() {
        let mut names = Names::new();
        assert_eq!(answer(b"", &mut names), None);
        assert_eq!(answer(&[0xff; 40], &mut names), None);
        let reply = answer(&query("example.org", TYPE::A), &mut names).unwrap();
        assert_eq!(answer(&reply, &mut names), None);
    }
}
