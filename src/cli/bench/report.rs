//! Figures of many runs made one: medians, ratios of pairs, a table or JSON.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// One figure of one run.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    /// Less is better: the ratio is turned round, so that above 1 always means ours is ahead.
    pub less: bool,
}

impl Reading {
    pub fn more(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            name,
            unit,
            value,
            less: false,
        }
    }

    pub fn less(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            name,
            unit,
            value,
            less: true,
        }
    }
}

/// A figure over all runs of a scenario.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    /// Medians over the runs.
    pub ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<f64>,
    /// The median over pairs of runs of how many times better ours is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    pub ours_runs: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub theirs_runs: Vec<f64>,
}

/// Everything about one scenario.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub scenario: &'static str,
    pub size: usize,
    /// Messages a run, ours and theirs.
    pub counts: Vec<u64>,
    pub figures: Vec<Figure>,
}

/// Makes figures of the readings of each run; the runs of both sides are pairs by index.
pub fn figures(ours: &[Vec<Reading>], theirs: &[Vec<Reading>]) -> Vec<Figure> {
    let Some(first) = ours.first() else {
        return Vec::new();
    };
    let values = |runs: &[Vec<Reading>], name: &str| -> Vec<f64> {
        let named = |run: &Vec<Reading>| {
            run.iter()
                .find(|reading| reading.name == name)
                .map(|reading| reading.value)
        };
        runs.iter().filter_map(named).collect()
    };
    let figure = |reading: &Reading| {
        let ours_runs = values(ours, reading.name);
        let theirs_runs = values(theirs, reading.name);
        let ratios = ours_runs.iter().zip(&theirs_runs).map(|(ours, theirs)| {
            if reading.less {
                theirs / ours
            } else {
                ours / theirs
            }
        });
        let ratio = median(ratios.filter(|ratio| ratio.is_finite()).collect());
        Figure {
            name: reading.name,
            unit: reading.unit,
            ours: median(ours_runs.clone()).unwrap_or(f64::NAN),
            theirs: median(theirs_runs.clone()),
            ratio,
            ours_runs,
            theirs_runs,
        }
    };
    first.iter().map(figure).collect()
}

/// The middle value, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// Prints one row a figure; `sides` are what the columns of a comparison are called.
pub fn print(outcomes: &[Outcome], sides: [&str; 2]) {
    let compared = outcomes
        .iter()
        .flat_map(|outcome| &outcome.figures)
        .any(|figure| figure.theirs.is_some());
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(if compared {
        vec!["scenario", "", sides[0], sides[1], "ratio", "unit"]
    } else {
        vec!["scenario", "", "median", "least", "most", "unit"]
    });
    for outcome in outcomes {
        for (index, figure) in outcome.figures.iter().enumerate() {
            let scenario = if index == 0 { outcome.scenario } else { "" };
            let (third, fourth) = if compared {
                let ratio = figure
                    .ratio
                    .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
                (figure.theirs.map_or_else(|| "-".to_owned(), number), ratio)
            } else {
                let least = figure.ours_runs.iter().copied().fold(f64::INFINITY, f64::min);
                let most = figure.ours_runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                (number(least), number(most))
            };
            let cells = [
                scenario,
                figure.name,
                &number(figure.ours),
                &third,
                &fourth,
                figure.unit,
            ];
            table.add_row(cells.map(str::to_owned));
        }
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    anstream::println!("{table}");
}

/// A figure with three digits that matter, thousands separated.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    if value < 1000.0 {
        let decimals = if value < 10.0 { 3 } else { 1 };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
