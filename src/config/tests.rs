//! The configuration as an operator meets it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use super::tree::{Item, Value};
use super::*;

fn load(text: &str, env: &[(&str, &str)], flags: Vec<Flag>) -> Result<Loaded, String> {
    let mut file = tempfile::Builder::new()
        .prefix("test")
        .suffix(".toml")
        .tempfile()
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_owned();
    let env = env
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect();
    let loaded = Config::load(&Sources {
        file: Some(path.clone()),
        env,
        flags,
    });
    loaded.map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
}

fn refused(text: &str) -> String {
    load(text, &[], vec![]).expect_err("it should be refused")
}

fn starts_with(error: &str, start: &str) {
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn nothing_said_means_defaults() {
    let loaded = Config::load(&Sources::default()).unwrap();
    assert_eq!(
        format!("{:?}", loaded.config),
        format!("{:?}", Config::default())
    );
}

#[test]
fn a_wrong_section_is_named_with_its_place_and_the_nearest_one() {
    starts_with(
        &refused("[mqqt]\n"),
        r#"FILE:1:2: there is no section "mqqt"; did you mean "mqtt"? (possible: node,"#,
    );
}

#[test]
fn a_wrong_key_is_named_with_its_place_and_the_nearest_one() {
    let error = refused("[node]\n\n[mqtt]\n  lsten = \"127.0.0.1:1\"\n");
    assert_eq!(
        error,
        r#"FILE:4:3: there is no key "lsten" in [mqtt]; did you mean "listen"?"#
    );
    let error = refused("[mqtt]\nxyzzy = 1\n");
    starts_with(
        &error,
        r#"FILE:2:1: there is no key "xyzzy" in [mqtt] (possible: listen, "#,
    );
}

#[test]
fn a_wrong_nested_key_is_named_with_its_table() {
    let error = refused("[kafka.groups]\ngroup_max = 1\n");
    starts_with(
        &error,
        r#"FILE:2:1: there is no key "group_max" in [kafka.groups]; did you mean "#,
    );
    let error = refused("[[mqtt.routes]]\nfilter = \"a\"\ntopic = \"b\"\nkyy = \"c\"\n");
    starts_with(
        &error,
        r#"FILE:4:1: there is no key "kyy" in [mqtt.routes[]]; did you mean "key"?"#,
    );
    let error = refused("[telemetry.schemas.pumps]\nrequierd = []\n");
    starts_with(
        &error,
        r#"FILE:2:1: there is no key "requierd" in [telemetry.schemas.pumps]; did you mean "required"?"#,
    );
}

#[test]
fn a_wrong_name_of_a_choice_is_answered_with_the_possible_ones() {
    let error = refused("[logging]\nlevel = \"inof\"\n");
    assert_eq!(
        error,
        r#"FILE:2:9: logging.level: "inof" is not possible; did you mean "info"? (possible: error, warn, info, debug, trace)"#
    );
    starts_with(
        &refused("[log]\ndurability = \"os\"\n"),
        r#"FILE:2:14: log.durability: "os" is not possible"#,
    );
}

#[test]
fn a_wrong_type_or_range_says_what_is_wanted() {
    let error = refused("[mqtt]\nconnections_max = \"many\"\n");
    starts_with(
        &error,
        r#"FILE:2:19: mqtt.connections_max: expected a whole number from 0 to "#,
    );
    assert!(error.ends_with(r#", got "many""#), "{error}");
    let error = refused("[kafka]\nnode_id = 1.5\n");
    assert_eq!(
        error,
        "FILE:2:11: kafka.node_id: expected a whole number, got 1.5"
    );
    let error = refused("[telemetry]\nduplicate_window_s = -1\n");
    assert_eq!(
        error,
        "FILE:2:22: telemetry.duplicate_window_s: expected a whole number from 0 to 4294967295, got -1"
    );
    let error = refused("[http]\nlisten = \"nowhere\"\n");
    assert_eq!(
        error,
        "FILE:2:10: http.listen: invalid socket address syntax"
    );
    let error = refused("[http]\nallow_anonymous = \"yes\"\n");
    assert_eq!(
        error,
        r#"FILE:2:19: http.allow_anonymous: expected true or false, got "yes""#
    );
    let error = refused("[log]\nmemory_bytes = 1000000\n");
    starts_with(
        &error,
        "FILE:2:16: log.memory_bytes is 1000000: at least 67108864 are needed",
    );
    let error = refused("mqtt = 1\n");
    assert_eq!(error, "FILE:1:8: mqtt: expected a section, got 1");
}

#[test]
fn a_missing_key_and_a_doubled_one_are_named() {
    let error = refused("[[mqtt.routes]]\nfilter = \"a\"\n");
    assert_eq!(
        error,
        r#"FILE:1:1: the key "topic" is missing in [mqtt.routes[]]"#
    );
    let error = refused("[node]\nworker_threads = 1\nworker_threads = 2\n");
    starts_with(&error, "FILE:3:1: not valid TOML: duplicate key");
}

#[test]
fn values_that_contradict_each_other_are_found_at_their_place() {
    let error = refused("[log]\nsegment_bytes = 1048576\n");
    starts_with(
        &error,
        "log.batch_bytes_max is 1048588: at most half of log.segment_bytes",
    );
    let error = refused("[log]\nsegment_bytes = 1\n");
    starts_with(
        &error,
        "FILE:2:17: log.segment_bytes is 1: at least 1048576 are needed",
    );
    let error = refused("[simulate]\nlate_share = 2.0\n");
    starts_with(
        &error,
        "FILE:2:14: simulate.late_share is 2: 0 to 1 is possible",
    );
    let listener =
        |name: &str| format!("[[kafka.listeners]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\n");
    let error = refused(&(listener("in") + &listener("IN")));
    starts_with(
        &error,
        "FILE:5:8: kafka.listeners[1].name: \"IN\" is there twice",
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let sources = Sources {
        file: Some("/nonexistent/holdfast.toml".into()),
        ..Sources::default()
    };
    let error = Config::load(&sources).unwrap_err().to_string();
    starts_with(&error, "cannot read /nonexistent/holdfast.toml: ");
}

#[test]
fn the_environment_overrides_the_file_and_options_override_both() {
    let file = "[mqtt]\nlisten = \"127.0.0.1:1\"\n[kafka]\nlisten = \"127.0.0.1:2\"\n[http]\nlisten = \"127.0.0.1:3\"\n";
    let env = [
        ("HOLDFAST_KAFKA__LISTEN", "127.0.0.1:22"),
        ("HOLDFAST_HTTP__LISTEN", "127.0.0.1:33"),
    ];
    let flags = vec![Flag {
        option: "--http",
        key: "http.listen",
        value: "127.0.0.1:333".into(),
    }];
    let config = load(file, &env, flags).unwrap().config;
    let ports = [
        config.mqtt.listen.port(),
        config.kafka.listen.unwrap().port(),
        config.http.listen.port(),
    ];
    assert_eq!(ports, [1, 22, 333]);
}

#[test]
fn the_environment_carries_every_type() {
    let env = [
        ("HOLDFAST_KAFKA__GROUPS__GROUPS_MAX", "1_000"),
        ("HOLDFAST_HTTP__ALLOW_ANONYMOUS", "true"),
        ("HOLDFAST_HTTP__EXTRA_LISTEN", "[\"127.0.0.1:8000\"]"),
        ("HOLDFAST_MQTT__ALLOW_ANONYMOUS", "false"),
        (
            "HOLDFAST_MQTT__ROUTES",
            "[{ filter = \"a/+\", topic = \"t\", key = \"{2}\" }]",
        ),
        ("HOLDFAST_LOGGING__FORMAT", "json"),
        ("HOLDFAST_SIMULATE__RATE_PER_S", "5"),
        (
            "HOLDFAST_TELEMETRY__SCHEMAS__PUMPS__REQUIRED",
            "[\"pump_id\"]",
        ),
        ("HOLDFAST_KAFKA__ADVERTISED", "12345"),
    ];
    let config = load("", &env, vec![]).unwrap().config;
    assert_eq!(config.kafka.groups.groups_max, 1_000);
    assert!(config.http.allow_anonymous);
    assert_eq!(
        config.http.extra_listen,
        ["127.0.0.1:8000".parse().unwrap()]
    );
    assert_eq!(config.mqtt.allow_anonymous, Some(false));
    assert_eq!(config.mqtt.routes.len(), 1);
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(config.simulate.rate_per_s, 5.0);
    assert_eq!(config.telemetry.schemas["pumps"].required, ["pump_id"]);
    assert_eq!(config.kafka.advertised.as_deref(), Some("12345"));
}

#[test]
fn wrong_variables_are_refused_with_the_nearest_right_one() {
    let error = |name: &str, value: &str| {
        load("", &[(name, value)], vec![]).expect_err("it should be refused")
    };
    starts_with(
        &error("HOLDFAST_MQTT__LISSEN", "x"),
        r#"environment variable HOLDFAST_MQTT__LISSEN: there is no key "lissen" in [mqtt]; did you mean HOLDFAST_MQTT__LISTEN?"#,
    );
    starts_with(
        &error("HOLDFAST_MQQT__LISTEN", "x"),
        r#"environment variable HOLDFAST_MQQT__LISTEN: there is no section "mqqt"; did you mean HOLDFAST_MQTT__LISTEN?"#,
    );
    starts_with(
        &error("HOLDFAST_KAFKA__GROUPS__GROUP_MAX", "1"),
        "environment variable HOLDFAST_KAFKA__GROUPS__GROUP_MAX: there is no key \"group_max\" in [kafka.groups]; did you mean HOLDFAST_KAFKA__GROUPS__GROUP",
    );
    starts_with(
        &error("HOLDFAST_LOGGING__LEVEL", "inof"),
        r#"environment variable HOLDFAST_LOGGING__LEVEL: logging.level: "inof" is not possible; did you mean "info"?"#,
    );
    starts_with(
        &error("HOLDFAST_MQTT__CONNECTIONS_MAX", "many"),
        "environment variable HOLDFAST_MQTT__CONNECTIONS_MAX: mqtt.connections_max: expected a whole number",
    );
    starts_with(
        &error("HOLDFAST_MQTT__ROUTES", "a/+"),
        "environment variable HOLDFAST_MQTT__ROUTES: mqtt.routes: \"a/+\" is not a TOML value",
    );
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    let file =
        "[mqtt]\nlisten = \"127.0.0.1:1\"\n[telemetry.schemas.pumps]\nrequired = [\"pump_id\"]\n";
    let flags = vec![Flag {
        option: "--http",
        key: "http.listen",
        value: "127.0.0.1:3".into(),
    }];
    let shown = load(file, &[("HOLDFAST_LOGGING__LEVEL", "debug")], flags)
        .unwrap()
        .show()
        .unwrap();
    let line = |start: &str| {
        shown
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("level").contains("\"debug\"")
            && line("level").ends_with("# environment variable HOLDFAST_LOGGING__LEVEL")
    );
    assert!(
        line("listen = \"127.0.0.1:1\"").contains(":2:10"),
        "{shown}"
    );
    assert!(
        line("listen = \"127.0.0.1:3\"").ends_with("# option --http"),
        "{shown}"
    );
    assert_eq!(line("worker_threads"), "worker_threads = 0");
    assert!(
        shown.contains("[telemetry.schemas.pumps]") && shown.contains("[telemetry.schemas.grid]"),
        "{shown}"
    );
    let again = load(&shown, &[], vec![]).unwrap().config;
    assert_eq!(again.mqtt.listen.port(), 1);
    assert_eq!(again.http.listen.port(), 3);
}

mod default_file {
    use super::*;

    fn decoded(text: &str) -> (Config, Shape, Table) {
        let tree = tree::parse(text, Path::new("packaging/holdfast.toml"))
            .unwrap_or_else(|e| panic!("{e}"));
        let shape = RefCell::new(Shape::default());
        let config = decode(&tree, &shape).unwrap_or_else(|e| panic!("{e}"));
        (config, shape.into_inner(), tree)
    }

    #[test]
    fn as_it_stands_it_changes_nothing() {
        let (config, _, _) = decoded(DEFAULT_FILE);
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn its_commented_defaults_are_the_codes() {
        let (config, _, _) = decoded(&uncommented(false));
        assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
    }

    #[test]
    fn it_names_every_key_of_every_section() {
        let (_, shape, tree) = decoded(&uncommented(true));
        let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        collect("", &Value::Table(tree), &mut written);
        let mut missing = Vec::new();
        for (path, fields) in by_pattern(&shape) {
            let keys = written
                .iter()
                .filter(|(at, _)| pattern(at, &shape) == path)
                .flat_map(|(_, keys)| keys);
            let keys: BTreeSet<&str> = keys.map(String::as_str).collect();
            missing.extend(
                fields
                    .iter()
                    .filter(|field| !keys.contains(*field))
                    .map(|field| format!("{path}.{field}")),
            );
        }
        assert!(
            missing.is_empty(),
            "packaging/holdfast.toml does not name {missing:?}"
        );
    }

    /// Struct paths with the free keys of maps written as `*`.
    fn by_pattern(shape: &Shape) -> BTreeMap<String, &'static [&'static str]> {
        shape
            .structs
            .iter()
            .map(|(path, fields)| (pattern(path, shape), *fields))
            .collect()
    }

    fn pattern(path: &str, shape: &Shape) -> String {
        match path.rsplit_once('.') {
            Some((parent, _)) if shape.maps.iter().any(|map| map == parent) => {
                format!("{parent}.*")
            }
            _ => path.to_owned(),
        }
    }

    fn collect(path: &str, value: &Value, out: &mut BTreeMap<String, BTreeSet<String>>) {
        match value {
            Value::Table(table) => {
                let keys = out.entry(path.to_owned()).or_default();
                keys.extend(table.entries().iter().map(|entry| entry.key.clone()));
                for entry in table.entries() {
                    collect(&tree::join(path, &entry.key), &entry.item.value, out);
                }
            }
            Value::Array(items) => {
                for Item { value, .. } in items {
                    collect(&format!("{path}[]"), value, out);
                }
            }
            _ => {}
        }
    }
}
