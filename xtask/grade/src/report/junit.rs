//! Writes the report as JUnit XML: a suite per submission, a case per check.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use crate::outcome::{Outcome, Report, Row, first_line};

/// Returns the reports as a JUnit document.
pub(crate) fn text(reports: &[Report]) -> Result<String, quick_junit::SerializeError> {
    let mut document = Document::new("accio conformance");
    let mut total = Duration::ZERO;
    for report in reports {
        let mut suite = TestSuite::new(format!("{} ({})", report.name, report.dialect.name()));
        suite.set_time(report.took);
        suite.add_property(("seed", report.seed.to_string().as_str()));
        suite.add_test_cases(report.rows.iter().map(case));
        suite.add_test_cases(report.problem.as_deref().map(nothing));
        document.add_test_suite(suite);
        total += report.took;
    }
    document.set_time(total);
    // The schema that Jenkins checks has this attribute only in suites, not in their parent.
    let skipped = document.test_suites.iter().map(|suite| suite.skipped).sum::<usize>();
    Ok(document.to_string()?.replacen(&format!(" skipped=\"{skipped}\""), "", 1))
}

/// Returns the failed case of a submission in which there is nothing to grade.
fn nothing(problem: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(first_line(problem)).set_type("nothing to grade");
    status.set_description(problem);
    let mut case = TestCase::new("the submission's programs", status);
    case.set_classname("submission").set_time(Duration::ZERO);
    case
}

fn case(row: &Row) -> TestCase {
    let status = match &row.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { expected, actual, during } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let mut description = String::new();
            for place in during {
                description.push_str(&format!("during: {place}\n"));
            }
            description.push_str(&format!(
                "expected: {expected}\nactual: {actual}\nrule: {}\nagain: {}\n",
                row.check.rule, row.command
            ));
            status.set_message(format!("expected {expected}, got {actual}"));
            status.set_type("fault").set_description(description);
            status
        }
        Outcome::Trouble(why) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(why.as_str()).set_type("trouble");
            status
        }
        Outcome::Skipped(why) | Outcome::NotGraded(why) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why.as_str());
            status
        }
    };
    let mut case = TestCase::new(format!("{} {}", row.check.id, row.check.about), status);
    case.set_classname(row.check.program.name()).set_time(row.took);
    if !row.stderr.is_empty() {
        case.set_system_err(row.stderr.join("\n"));
    }
    case
}
