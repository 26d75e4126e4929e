//! The telemetry store (SQLite): one writer, the telemetry pipeline.
