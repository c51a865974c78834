//! Links between pages.

use std::collections::HashSet;

use super::{Page, pages};

#[test]
fn every_link_leads_to_a_file_and_to_a_heading() {
    let pages = pages();
    let mut wrong = Vec::new();
    for page in &pages {
        for target in links(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let to = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            let Ok(to) = to.canonicalize() else {
                wrong.push(format!("{}: there is no {target}", page.name()));
                continue;
            };
            let there = pages.iter().find(|page| page.path.canonicalize().is_ok_and(|path| path == to));
            if !heading.is_empty() && !there.is_some_and(|page| headings(page).contains(heading)) {
                wrong.push(format!("{}: there is no heading {target}", page.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What stands in `](…)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if !in_code {
            found.extend(line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
    }
    found
}

/// The names by which a page's headings are linked to.
fn headings(page: &Page) -> HashSet<String> {
    let title = |line: &str| line.starts_with('#').then(|| line.trim_start_matches('#').trim().to_lowercase());
    let name = |title: String| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    page.text.lines().filter_map(title).map(name).collect()
}
