//! What differs, and nothing else does.

/// A difference that is meant.
pub(crate) struct Difference {
    /// What is asked, or a part of it.
    asked: &'static [&'static str],
    /// What Patroni answers (`- `) or we do (`+ `), or how that begins.
    lines: &'static [&'static str],
    /// The row of docs/compatibility.md that gives the reason begins so.
    row: &'static str,
}

/// Of all questions, asked by anybody from anywhere.
pub(crate) const OF_ANSWERS: &[Difference] = &[
    Difference { asked: &["GET /"], lines: &["+ $.patroni.matriarch: "], row: "| `GET /patroni`, health checks |" },
    Difference { asked: &["GET /patroni"], lines: &["+ $.matriarch"], row: "| `GET /patroni` |" },
    Difference {
        asked: &["GET /metrics"],
        lines: &["+ # TYPE matriarch_", "+ help of matriarch_", "+ metric matriarch_"],
        row: "| `GET /metrics` |",
    },
    Difference {
        asked: &["GET /failsafe", "BREW", "TRACE", "get /", "DELETE /", "PATCH /", "PUT /", "POST /"],
        lines: &["+ header x-extra: "],
        row: "| error pages |",
    },
    Difference {
        asked: &["POST /citus", "POST /mpp"],
        lines: &["- status 400", "- status 411", "- ", "+ status 501", "+ "],
        row: "| `POST /citus`, `/mpp` |",
    },
    Difference {
        asked: &["without a store, leader: GET /cluster", "without a store, replica: GET /cluster"],
        lines: &["- no answer", "+ status 503", "+ "],
        row: "| `GET /cluster`, `/history`, `/config`, the store is silent |",
    },
    Difference {
        asked: &[
            "without a store, leader: GET /history",
            "without a store, replica: GET /history",
            "without a store, leader: GET /config",
            "without a store, replica: GET /config",
        ],
        lines: &["- no answer", "+ status 200", "+ "],
        row: "| `GET /cluster`, `/history`, `/config`, the store is silent |",
    },
    Difference {
        asked: &[
            "without a store, leader: GET /async",
            "without a store, replica: GET /async",
            "without a store, leader: HEAD /async",
            "without a store, replica: HEAD /async",
            "without a store, leader: OPTIONS /async",
            "without a store, replica: OPTIONS /async",
        ],
        lines: &["- status 503", "+ status 200"],
        row: "| `/async`, `/asynchronous`, the store is silent |",
    },
    Difference {
        asked: &["POST /restart as Right with \"{\\\"postgres_version\\\":15}\""],
        lines: &["- no answer", "+ status 400", "+ "],
        row: "| `POST /restart` |",
    },
];

/// Of who may ask.
pub(crate) const OF_ACCESS: &[Difference] = &[
    Difference {
        asked: &["GET /health", "GET /primary", "GET /replica"],
        lines: &["+ $.patroni.matriarch: "],
        row: "| `GET /patroni`, health checks |",
    },
    Difference {
        asked: &["nothing that can be read, Plainly: ", "nothing that can be read, AsMember: "],
        lines: &["- ", "+ status 403", "+ text Access is denied", "+ header content-type: text/html"],
        row: "| unsafe endpoints, `restapi.allowlist` ",
    },
];

const DOCUMENT: &str = include_str!("../../../docs/compatibility.md");

/// Fails for a difference that is not listed, one that is listed and was not found, and one without a row.
pub(crate) fn must_be(found: &[(String, String)], differences: &[Difference]) {
    let listed = || {
        differences
            .iter()
            .flat_map(|one| one.asked.iter().flat_map(|part| one.lines.iter().map(move |line| (part, line))))
    };
    let is = |(part, begin): (&&str, &&str), (asked, line): &(String, String)| {
        asked.contains(*part) && line.starts_with(*begin)
    };
    let unlisted = found.iter().filter(|one| !listed().any(|entry| is(entry, one)));
    let mut objections: Vec<String> = unlisted.map(|(asked, line)| format!("not listed: {asked}: {line}")).collect();
    let gone = listed().filter(|entry| !found.iter().any(|one| is(*entry, one)));
    objections.extend(gone.map(|(part, line)| format!("listed and not found: {part}: {line}")));
    let unwritten = differences.iter().filter(|one| !DOCUMENT.lines().any(|line| line.starts_with(one.row)));
    objections.extend(unwritten.map(|one| format!("docs/compatibility.md has no row {}", one.row)));
    assert!(objections.is_empty(), "{} differences:\n{}", objections.len(), objections.join("\n"));
}
