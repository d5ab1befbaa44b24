//! SQL on a member: `query`; and `dsn`, where to connect to.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::format::{Format, plain};
use super::login::{Wanted, login, told};
use super::members::{self, MemberView, Role};
use super::table::{Column, draw};
use super::{Ctl, CtlError, DsnArgs, QueryArgs, failed, local_time};
use crate::api::ClusterRead;
use crate::config::Secret;
use crate::config::emit::python_float;

pub(super) async fn dsn(mut ctl: Ctl<'_>, args: DsnArgs) -> Result<(), CtlError> {
    let name = ctl.cluster_name(args.cluster)?;
    let cluster = ctl.read(&name).await?;
    let Some(member) = choose(&cluster, args.role, args.member.as_deref())? else {
        return failed("Can not find a suitable member");
    };
    ctl.console.line(&format!("host={} port={}", member.host(), member.port().unwrap_or(5432)))
}

/// The first member that is meant; without a word, the leader.
fn choose<'a>(
    cluster: &'a ClusterRead,
    role: Option<Role>,
    named: Option<&str>,
) -> Result<Option<MemberView<'a>>, CtlError> {
    if role.is_some() && named.is_some() {
        return failed("--role and --member are mutually exclusive options");
    }
    let role = role.unwrap_or(if named.is_some() { Role::Any } else { Role::Leader });
    let fits =
        |member: &MemberView<'_>| role.includes(member.role()) && named.is_none_or(|named| named == member.name());
    Ok(members::all(cluster).find(fits))
}

/// What a query came to: the names of its columns, and rows; or only why there are none.
type Rows = (Vec<String>, Vec<Vec<Value>>);

pub(super) async fn query(mut ctl: Ctl<'_>, args: QueryArgs) -> Result<(), CtlError> {
    let sql = match (&args.file, &args.command) {
        (Some(_), Some(_)) => return failed("--file and --command are mutually exclusive options"),
        (None, None) => return failed("You need to specify either --command or --file"),
        (Some(file), None) => ctl.console.text_of(file)?,
        (None, Some(command)) => command.clone(),
    };
    let password = if args.password { Some(Secret::new(ctl.console.secret("Password")?)) } else { None };
    let name = ctl.cluster_name(args.cluster.clone())?;
    let cluster = ctl.read(&name).await?;
    loop {
        let outcome = ask(&cluster, &args, password.clone(), &sql).await?;
        let shown = match &outcome {
            Ok((headers, rows)) => render(&args, headers, rows),
            Err(why) => {
                render(&args, &[], &[vec![local_time("%Y-%m-%d %H:%M:%S", Duration::ZERO).into(), why.as_str().into()]])
            }
        };
        // These formats have no place for what has no name.
        if let (Err(why), Format::Json | Format::Yaml) = (&outcome, args.format) {
            eprintln!("{why}");
        }
        ctl.console.print(&shown)?;
        let Some(pause) = args.watch.pause() else { return Ok(()) };
        tokio::time::sleep(pause).await;
    }
}

/// The inner error is shown as a row, and is no failure of the command.
async fn ask(
    cluster: &ClusterRead,
    args: &QueryArgs,
    password: Option<Secret>,
    sql: &str,
) -> Result<Result<Rows, String>, CtlError> {
    let unavailable = || match (&args.member, args.role) {
        (Some(member), _) => format!("No connection to member {member} is available"),
        (None, Some(role)) => format!("No connection to role '{}' is available", role.name()),
        (None, None) => "No connection is available".to_owned(),
    };
    let Some(member) = choose(cluster, args.role, args.member.as_deref())? else { return Ok(Err(unavailable())) };
    let wanted = Wanted { dbname: args.dbname.as_deref(), user: args.username.as_deref(), password };
    let (client, connection) = match login(member, &wanted).await {
        Ok(connected) => connected,
        Err(why) => return Ok(Err(format!("ERROR, SQLSTATE: {why}"))),
    };
    let outcome = match still_has_the_role(&client, args.role).await {
        Ok(true) => run(&client, sql).await,
        Ok(false) => Err(unavailable()),
        Err(why) => Err(why),
    };
    drop(client);
    // The farewell is sent; a server that does not hear it is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
    Ok(outcome)
}

/// The store may be behind: who was asked for by anything but the leader key is asked again what it is.
async fn still_has_the_role(client: &Client, role: Option<Role>) -> Result<bool, String> {
    let in_recovery = match role {
        None | Some(Role::Any | Role::Leader) => return Ok(true),
        Some(_) => client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await,
    };
    let in_recovery: bool = in_recovery.map_err(|error| failure(&error))?.get(0);
    Ok(in_recovery != (role == Some(Role::Primary)))
}

/// The rows of the first statement that has some.
async fn run(client: &Client, sql: &str) -> Result<Rows, String> {
    // Several statements cannot be prepared: then nothing is known of types.
    let types: Vec<Type> = match client.prepare(sql).await {
        Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
        Err(_) => Vec::new(),
    };
    let messages = client.simple_query(sql).await.map_err(|error| failure(&error))?;
    let (mut headers, mut rows): (Option<Vec<String>>, _) = (None, Vec::new());
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                headers = Some(columns.iter().map(|column| column.name().to_owned()).collect());
            }
            SimpleQueryMessage::Row(row) => rows.push(values(&row, &types)),
            SimpleQueryMessage::CommandComplete(_) => break,
            _ => {}
        }
    }
    match headers {
        Some(headers) => Ok((headers, rows)),
        None => Err("ERROR, SQLSTATE: no results to fetch".to_owned()),
    }
}

fn values(row: &SimpleQueryRow, types: &[Type]) -> Vec<Value> {
    (0..row.len()).map(|index| row.get(index).map_or(Value::Null, |text| value(text, types.get(index)))).collect()
}

/// A value as Python's driver reads it and Python shows it.
fn value(text: &str, kind: Option<&Type>) -> Value {
    let number = || text.parse::<i64>().map_or_else(|_| text.into(), Value::from);
    match kind {
        Some(&Type::BOOL) => Value::Bool(text == "t"),
        Some(&Type::INT2 | &Type::INT4 | &Type::INT8 | &Type::OID) => number(),
        Some(&Type::FLOAT4 | &Type::FLOAT8) => {
            let finite = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            finite.map_or_else(|| text.to_lowercase().into(), Value::Number)
        }
        Some(&Type::TIMESTAMP | &Type::TIMESTAMPTZ | &Type::TIMETZ | &Type::TIME) => python_time(text).into(),
        _ => text.into(),
    }
}

/// Six digits of a fraction or none, and minutes in the offset.
fn python_time(text: &str) -> String {
    let split = text.find(' ').map_or(0, |blank| blank + 1);
    let (date, time) = text.split_at(split);
    let offset = time.find(['+', '-']).unwrap_or(time.len());
    let (clock, offset) = time.split_at(offset);
    let clock = clock.split_once('.').map_or_else(|| clock.to_owned(), |(whole, part)| format!("{whole}.{part:0<6}"));
    let minutes = if offset.is_empty() || offset.contains(':') { "" } else { ":00" };
    format!("{date}{clock}{offset}{minutes}")
}

/// The code of the server's error, or what else went wrong.
fn failure(error: &tokio_postgres::Error) -> String {
    format!("ERROR, SQLSTATE: {}", error.code().map_or_else(|| told(error), |code| code.code().to_owned()))
}

fn render(args: &QueryArgs, headers: &[String], rows: &[Vec<Value>]) -> String {
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let lines: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    match args.format {
        Format::Json | Format::Yaml => plain(args.format, &headers, rows, false),
        Format::Tsv => {
            let headers = (!headers.is_empty()).then(|| headers.iter().map(ToString::to_string).collect::<Vec<_>>());
            let lines = headers.into_iter().chain(lines).map(|line| line.join(&args.delimiter) + "\n");
            lines.collect()
        }
        Format::Pretty | Format::Topology => {
            let unnamed: Vec<String> =
                (1..=lines.first().map_or(0, Vec::len)).map(|number| format!("Field {number}")).collect();
            let headers = if headers.is_empty() { unnamed.iter().map(String::as_str).collect() } else { headers };
            let columns: Vec<Column<'_>> = headers.into_iter().map(|header| Column { header, right: false }).collect();
            draw(None, &columns, &lines)
        }
    }
}

/// As Python's `str` shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => number.as_f64().map(python_float).unwrap_or_default(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_python_shows_them() {
        for (text, expected) in [
            ("2026-11-22 18:59:36.068758+00", "2026-11-22 18:59:36.068758+00:00"),
            ("2026-11-22 18:59:36.5+05:30", "2026-11-22 18:59:36.500000+05:30"),
            ("2026-11-22 18:59:36-03", "2026-11-22 18:59:36-03:00"),
            ("2026-11-22 18:59:36", "2026-11-22 18:59:36"),
            ("18:59:36.5", "18:59:36.500000"),
        ] {
            assert_eq!(python_time(text), expected);
        }
    }

    #[test]
    fn values_are_shown_as_python_shows_them() {
        let cases = [
            (("t", Some(&Type::BOOL)), "True"),
            (("-5", Some(&Type::INT4)), "-5"),
            (("1e+20", Some(&Type::FLOAT8)), "1e+20"),
            (("5", Some(&Type::FLOAT8)), "5.0"),
            (("NaN", Some(&Type::FLOAT8)), "nan"),
            (("1.50", Some(&Type::NUMERIC)), "1.50"),
            (("t", None), "t"),
        ];
        for ((text, kind), expected) in cases {
            assert_eq!(shown(&value(text, kind)), expected, "{text}");
        }
        assert_eq!(shown(&Value::Null), "None");
    }
}
