//! `docs/settings.md` holds every setting of the family, and none that does not exist.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, bail};
use syn::{FnArg, ImplItem, Item, ReturnType, Type, Visibility};

use crate::steps::root;

/// The page that holds the table.
const PAGE: &str = "docs/settings.md";

/// Where the builders are.
const BUILDERS: [&str; 8] = [
    "pool-core/src/config.rs",
    "pool-postgres/src/engine/builder.rs",
    "pool-postgres/src/retry.rs",
    "pool-postgres/src/session/options.rs",
    "router/src/builder.rs",
    "router/src/tenancy/install/shared_tables.rs",
    "router/src/tenancy/tenants.rs",
    "router/src/tenancy/load.rs",
];

pub(crate) fn check() -> anyhow::Result<()> {
    let page = fs::read_to_string(root().join(PAGE)).with_context(|| PAGE.to_owned())?;
    let mut settings = BTreeMap::new();
    for file in BUILDERS {
        let text = fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
        for name in setters(&text).with_context(|| file.to_owned())? {
            settings.entry(name).or_insert(file);
        }
    }
    let rows = rows(&page);
    let mut faults = Vec::new();
    for (name, file) in &settings {
        if !rows.contains(name) {
            faults.push(format!("{PAGE} has no row for {name}, a setting of {file}"));
        }
    }
    for name in rows.iter().filter(|name| !settings.contains_key(*name)) {
        faults.push(format!(
            "{PAGE} has a row for {name}, and there is no such setting"
        ));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("{} settings, each with its row", settings.len());
    Ok(())
}

/// The public methods that take a builder and give it back.
fn setters(text: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in syn::parse_file(text)?.items {
        let Item::Impl(block) = item else { continue };
        if block.trait_.is_some() {
            continue;
        }
        for item in block.items {
            let ImplItem::Fn(method) = item else { continue };
            let signature = &method.sig;
            let by_value = matches!(
                signature.inputs.first(),
                Some(FnArg::Receiver(receiver)) if receiver.reference.is_none()
            );
            if matches!(method.vis, Visibility::Public(_)) && by_value && is_self(&signature.output)
            {
                names.push(signature.ident.to_string());
            }
        }
    }
    Ok(names)
}

fn is_self(output: &ReturnType) -> bool {
    matches!(output, ReturnType::Type(_, kind)
        if matches!(&**kind, Type::Path(path) if path.path.is_ident("Self")))
}

/// What stands in back quotes in the first cell of each row.
fn rows(page: &str) -> Vec<String> {
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = quoted.map(|name| name.split('(').next().unwrap_or(name));
    names.map(str::to_owned).collect()
}
