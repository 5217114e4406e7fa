//! Addresses as text: what is read, what is refused, and that no secret is ever shown.

use pool_postgres::{EngineConfig, ErrorKind};

fn parse(text: &str) -> EngineConfig {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    let error = text
        .parse::<EngineConfig>()
        .map(|options| panic!("{text} was read as {options}"))
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Url, "{text}");
    error.to_string()
}

#[test]
fn what_is_rendered_reads_back_to_the_same_options() {
    for text in [
        "postgresql://",
        "postgresql://h",
        "postgresql:///db",
        "postgresql://u:p@h:5432/db",
        "postgres://u@h/db",
        "postgresql://u:p%40ss%3Aw%2Ford%25@h/db",
        "postgresql://u%40corp:a+b%20c@h/my%2Fdb%3Fx%20y",
        "postgresql://[::1]:5433,[2001:db8::1]/db",
        "postgresql://h1:1,h2:2/db?target_session_attrs=read-write&load_balance_hosts=random",
        "postgresql://h1,h2/db?hostaddr=10.0.0.1,10.0.0.2",
        "postgresql:///db?hostaddr=::1",
        "postgresql://h/db?passfile=/x/pass&sslcert=/x/c.crt&sslkey=/x/c.key&external_pooler=on",
        "postgresql://h/db?min_idle=2&idle_timeout=30&max_waiting=9&max_connecting=3",
        "postgresql://%2Frun%2Fpg/db",
        "postgresql:///db?host=/run/pg&port=5433",
        "postgresql://u@h/db?sslmode=verify-full&sslrootcert=/x/ca.pem&channel_binding=require",
        "postgresql://u@h/db?connect_timeout=2.5&application_name=my%20app&options=-c%20x%3D1",
        "postgresql://u@h/db?keepalives=0&keepalives_idle=7&keepalives_interval=3&keepalives_count=9&tcp_user_timeout=250",
        "postgresql://u@h/db?pool_size=7&max_overflow=-1&pool_timeout=0.5&pool_recycle=60&pool_pre_ping=true",
        "user= dbname= host= port=",
        "postgresql://[]/db",
        "postgresql:///db?host=/a:b",
        "postgresql://[fe80::1%25eth0]/db",
        "host=h user=u password='it''s' dbname=db",
        r"host=h1,h2 port=1,2 user=u password='a \' b\\c' sslrootcert=system",
    ] {
        let Ok(options) = text.parse::<EngineConfig>() else {
            // libpq doubles no quotes: the pair after it is cut short.
            assert!(text.contains("it''s"), "{text}");
            continue;
        };
        assert_eq!(parse(&options.render_with_password()), options, "{text}");
    }
}

#[test]
fn libpq_and_sqlalchemy_forms_mean_the_same() {
    let plain = parse("postgresql://u:p@h:5433/db");
    assert_eq!(parse("postgresql+asyncpg://u:p@h:5433/db"), plain);
    assert_eq!(parse("postgresql+psycopg://u:p@h:5433/db"), plain);
    assert_eq!(parse("postgres://u:p@h:5433/db"), plain);
    assert_eq!(parse("postgresql://u:p@other/db?host=h&port=5433"), plain);
    assert_eq!(parse("postgresql://u:p@/db?host=h:5433"), plain);
    assert_eq!(parse("host=h port=5433 user=u password=p dbname=db"), plain);
    let several = parse("postgresql://h1:1,h2:2/db");
    assert_eq!(parse("postgresql:///db?host=h1:1&host=h2:2"), several);
    assert_eq!(parse("postgresql:///db?host=h1,h2&port=1,2"), several);
    assert_eq!(
        parse("postgresql:///db?host=h1,h2&port=5"),
        parse("postgresql://h1:5,h2:5/db")
    );
}

#[test]
fn what_libpq_takes_and_asks_for_nothing_here_is_taken() {
    let plain = parse("postgresql://h/db");
    for harmless in [
        "gssencmode=prefer",
        "sslcompression=0",
        "sslsni=1",
        "ssl_min_protocol_version=TLSv1.2",
        "client_encoding=UTF8",
    ] {
        assert_eq!(parse(&format!("postgresql://h/db?{harmless}")), plain);
    }
}

#[test]
fn of_a_key_that_stands_twice_in_pairs_the_last_counts() {
    let plain = parse("host=h2 port=2 user=u");
    assert_eq!(parse("host=h1 port=1 user=u host=h2 port=2"), plain);
}

#[test]
fn a_whole_systems_authorities_demand_that_the_name_is_checked() {
    let build = |query: &str| {
        pool_postgres::Engine::builder(format!("postgresql://u@h/db?sslrootcert=system{query}"))
            .build()
    };
    build("").expect("verify-full is the default then");
    build("&sslmode=verify-full").expect("the same");
    for mode in ["disable", "prefer", "require", "verify-ca"] {
        let error = build(&format!("&sslmode={mode}")).expect_err("too weak");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("verify-full"), "{error}");
    }
}

#[test]
fn a_setting_that_the_protocol_cannot_carry_is_refused_when_the_engine_is_built() {
    let options = EngineConfig::default().user("u\0v");
    let error = pool_postgres::Engine::from_config(options)
        .build()
        .expect_err("a NUL");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("the user holds a NUL"),
        "{error}"
    );
}

#[test]
fn a_password_may_hold_anything_once_encoded_and_an_at_sign_even_plain() {
    let options = parse("postgresql://u:p%40s:s%2Fw%25@h/db");
    assert!(options.render_with_password().contains("p%40s%3As%2Fw%25"));
    assert_eq!(
        parse("postgresql://u:p@ss@h/db"),
        parse("postgresql://u:p%40ss@h/db")
    );
}

#[test]
fn ambiguous_text_is_refused_with_the_remedy_and_without_the_secret() {
    for (text, remedy) in [
        ("postgresql://u:hu/sh@h/db", "%2F"),
        ("postgresql://u/x:hush@h/db", "%2F"),
        ("postgresql://u:hu?sh@h/db", "%3F"),
        ("postgresql://u:hu@x?sh@h/db", "%3F"),
        ("postgresql://u:hu%sh@h/db", "%25"),
        ("postgresql://u:hush", "password"),
        ("postgresql://u:pa@ss:hush", "%40"),
        ("host=h password=hu sh", "quote"),
        ("password='hush", "closing quote"),
    ] {
        let message = refusal(text);
        assert!(message.contains(remedy), "{text}: {message}");
        for part in ["hush", "sh@", "hu "] {
            assert!(!message.contains(part), "{text}: {message}");
        }
    }
}

#[test]
fn mistakes_are_named_with_the_remedy() {
    for (text, parts) in [
        ("", &["empty"][..]),
        ("localhost", &["postgresql://user@host/database"]),
        ("mysql://h/db", &["mysql", "postgresql://"]),
        ("postgresql+foo://h/db", &["foo", "leave it out"]),
        ("postgresql://u@h:99999/db", &["99999", "65535"]),
        ("postgresql://u@h:0/db", &["\"0\"", "65535"]),
        ("postgresql://u@h:abc/db", &["port is not a number"]),
        ("postgresql://u@::1:5432/db", &["[::1]:5432"]),
        ("postgresql://u@[::1/db", &["']'"]),
        ("postgresql://h/db?pool_szie=5", &["pool_szie", "pool_size"]),
        ("postgresql://h/db?sslmod=require", &["sslmod", "sslmode"]),
        ("postgresql://h/db?zzz=1", &["zzz"]),
        ("postgresql://h/db?sslmode=yes", &["yes", "verify-full"]),
        ("postgresql://h/db?pool_size=-3", &["pool_size", "-3"]),
        ("postgresql://h/db?pool_size=many", &["pool_size", "many"]),
        (
            "postgresql://h/db?pool_timeout=soon",
            &["pool_timeout", "seconds"],
        ),
        (
            "postgresql://h/db?connect_timeout=0",
            &["connect_timeout", "zero"],
        ),
        (
            "postgresql://h/db?client_encoding=latin1",
            &["latin1", "UTF-8"],
        ),
        (
            "postgresql://h/db?application_name",
            &["application_name", "no value"],
        ),
        (
            "postgresql:///db?host=a,b&port=1,2,3",
            &["2 hosts", "3 ports"],
        ),
        ("postgresql://u@h/d%00b", &["%00"]),
        (
            "postgresql://h/db?hostaddr=name",
            &["hostaddr", "name", "host"],
        ),
        (
            "postgresql://a,b/db?hostaddr=10.0.0.1",
            &["2 hosts", "1 addresses"],
        ),
        ("postgresql://h/db?service=shop", &["service", "write out"]),
        (
            "postgresql://h/db?require_auth=none",
            &["require_auth", "channel_binding"],
        ),
        (
            "postgresql://h/db?gssencmode=require",
            &["gssencmode", "sslmode"],
        ),
        (
            "postgresql://h/db?sslpassword=hush",
            &["sslpassword", "decrypt"],
        ),
        (
            "postgresql://h/db?pool_timeout=-1",
            &["pool_timeout", "seconds"],
        ),
        (
            "postgresql://h/db?pool_timeout=1e3",
            &["pool_timeout", "seconds"],
        ),
        ("postgresql://u@h/d\0b", &["NUL"]),
        ("host", &["key=value"]),
    ] {
        let message = refusal(text);
        for part in parts {
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}

#[test]
fn no_text_form_but_the_one_asked_for_shows_the_password() {
    let options = parse("postgresql://u:hush@h/db?pool_size=3");
    assert_eq!(options.to_string(), "postgresql://u:***@h/db?pool_size=3");
    assert!(!format!("{options:?}").contains("hush"));
    assert!(options.render_with_password().contains("hush"));
    let builder = pool_postgres::Engine::builder("postgresql://u:hush@h/db");
    assert!(!format!("{builder:?}").contains("hush"));
    let engine = builder.build().expect("good settings");
    assert!(!format!("{engine:?} {}", engine.status()).contains("hush"));
}
