//! Client quotas as administrators see and change them (KIP-546).

use crate::kafka::protocol::wire::Str;

messages! {
    DescribeClientQuotasRequest {
        components: Vec<ComponentData> => 0..;
        strict: bool => 0..;
    }

    ComponentData {
        entity_type: Str => 0..;
        /// 0 exactly this name, 1 the default, 2 any.
        match_type: i8 => 0..;
        _match: Option<Str> => 0.., default Some(Str::default());
    }

    DescribeClientQuotasResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        entries: Option<Vec<QuotaEntryData>> => 0.., default Some(Vec::new());
    }

    QuotaEntryData {
        entity: Vec<QuotaEntityData> => 0..;
        values: Vec<QuotaValueData> => 0..;
    }

    QuotaEntityData {
        entity_type: Str => 0..;
        entity_name: Option<Str> => 0.., default Some(Str::default());
    }

    QuotaValueData {
        key: Str => 0..;
        value: f64 => 0..;
    }

    AlterClientQuotasRequest {
        entries: Vec<AlterQuotaEntryData> => 0..;
        validate_only: bool => 0..;
    }

    AlterQuotaEntryData {
        entity: Vec<QuotaEntityData> => 0..;
        ops: Vec<QuotaOpData> => 0..;
    }

    QuotaOpData {
        key: Str => 0..;
        value: f64 => 0..;
        remove: bool => 0..;
    }

    AlterClientQuotasResponse {
        throttle_time_ms: i32 => 0..;
        entries: Vec<AlterQuotaResult> => 0..;
    }

    AlterQuotaResult {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        entity: Vec<QuotaEntityData> => 0..;
    }
}
