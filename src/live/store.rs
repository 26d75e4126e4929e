//! The telemetry store as a [`TelemetrySource`].

use holdfast_storage::telemetry::TelemetryReader;

use super::sources::{InvalidItem, TelemetrySource};

impl TelemetrySource for TelemetryReader {
    fn summary(&self) -> Result<String, String> {
        let summary = self.topics_summary().map_err(|error| error.to_string())?;
        serde_json::to_string(&summary).map_err(|error| error.to_string())
    }

    fn invalid_recent(&self, limit: usize) -> Result<Vec<InvalidItem>, String> {
        let page = TelemetryReader::invalid_recent(self, limit, None)
            .map_err(|error| error.to_string())?;
        let records = page.records.into_iter().map(|view| {
            let json = serde_json::to_string(&view).map_err(|error| error.to_string())?;
            Ok(InvalidItem { id: view.id, json })
        });
        records.collect()
    }
}
