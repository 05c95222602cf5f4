//! Draws a report as bar charts, one bar per peer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::report::{Figure, Report, Workload};
use super::table::number;

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const LIMITS: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);
const THEIRS: RGBColor = RGBColor(0xff, 0x9e, 0x4a);

/// Draws the workloads that have suitable figures. `path` is a directory, for one file each, or an
/// SVG file, for the first.
pub(super) fn draw(report: &Report, path: &Path) -> Result<Vec<PathBuf>> {
    let mut drawn = Vec::new();
    let single = path.extension().is_some_and(|extension| extension == "svg");
    if !single {
        std::fs::create_dir_all(path).with_context(|| format!("cannot create {path:?}"))?;
    }
    for workload in &report.workloads {
        let panels: Vec<Panel> =
            [Figure::Throughput, Figure::Rate, Figure::Wall, Figure::ServerCpu, Figure::ClientCpu]
                .into_iter()
                .filter_map(|figure| Panel::of(workload, figure))
                .take(2)
                .collect();
        if panels.is_empty() {
            continue;
        }
        let file = match single {
            true => path.to_owned(),
            false => path.join(format!("bench-{}.svg", workload.name)),
        };
        draw_workload(workload, &panels, &file)
            .with_context(|| format!("cannot draw {}", file.display()))?;
        drawn.push(file);
        if single {
            break;
        }
    }
    Ok(drawn)
}

struct Panel {
    title: String,
    /// Name, median and quartiles of each peer, from the bottom up.
    bars: Vec<(String, f64, (f64, f64))>,
}

impl Panel {
    fn of(workload: &Workload, figure: Figure) -> Option<Panel> {
        let mut unit = "";
        let mut bars = Vec::new();
        for row in workload.rows.iter().rev() {
            let Some(sample) = row.figures.get(&figure) else { continue };
            unit = &sample.unit;
            bars.push((row.peer.clone(), sample.median, sample.quartiles()));
        }
        let title = format!("{}, {unit}", figure.title());
        (!bars.is_empty()).then_some(Panel { title, bars })
    }
}

fn draw_workload(workload: &Workload, panels: &[Panel], file: &Path) -> Result<()> {
    let rows = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(1) as u32;
    let size = (460 * panels.len() as u32 + 20, 26 * rows + 110);
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&workload.title, ("sans-serif", 17))?;
    for (panel, area) in panels.iter().zip(root.split_evenly((1, panels.len()))) {
        draw_panel(panel, &area)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    panel: &Panel,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<()> {
    let most = panel.bars.iter().map(|bar| bar.1.max(bar.2.1)).fold(0.0, f64::max);
    let rows = panel.bars.len();
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..most * 1.18, 0.0..rows as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(5)
        .x_label_formatter(&|value| number(*value))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (peer, median, (low, high))) in panel.bars.iter().enumerate() {
        let (bottom, middle, top) = (index as f64 + 0.15, index as f64 + 0.5, index as f64 + 0.85);
        let color = match peer {
            peer if peer.starts_with("accio") || peer.starts_with("server-s") => OURS,
            peer if ["limit", "floor", "iperf"].iter().any(|name| peer.starts_with(name)) => LIMITS,
            _ => THEIRS,
        };
        let bar = Rectangle::new([(0.0, bottom), (*median, top)], color.filled());
        let spread = PathElement::new(vec![(*low, middle), (*high, middle)], BLACK);
        chart.draw_series([bar])?;
        chart.draw_series([spread])?;
        let value = Text::new(
            number(*median),
            (median.max(*high) + most * 0.015, middle + 0.2),
            ("sans-serif", 12),
        );
        chart.draw_series([value])?;
        let plot = chart.plotting_area();
        let (x, y) = plot.map_coordinate(&(0.0, middle));
        let style =
            ("sans-serif", 13).into_text_style(area).pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Right,
                plotters::style::text_anchor::VPos::Center,
            ));
        let (left, above) = area.get_base_pixel();
        area.draw_text(peer, &style, (x - left - 6, y - above))?;
    }
    Ok(())
}
