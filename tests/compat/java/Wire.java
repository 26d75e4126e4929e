import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.FetchResponseData;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ShareFetchResponseData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.requests.ResponseHeader;

/**
 * Kafka's own codec behind a pipe: a line of JSON in, a line of JSON out.
 *
 * <p>The probe keeps its sockets and its cases in Python; what a request looks like on the wire and what
 * an answer means is asked here, of the classes that Kafka's clients use. A body names only the fields
 * that matter; the others have the protocol's defaults, and fields that a version does not have are left
 * out, so that one body serves every version of an API.
 */
public final class Wire {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(JSON.writeValueAsString(answer(JSON.readTree(line))));
        }
    }

    private static JsonNode answer(JsonNode question) {
        try {
            return switch (question.get("op").asText()) {
                case "tables" -> tables();
                case "encode" -> encode(question);
                case "decode" -> decode(question);
                default -> throw new IllegalArgumentException("op " + question.get("op"));
            };
        } catch (InvocationTargetException error) {
            return JSON.createObjectNode().put("failed", String.valueOf(error.getCause()));
        } catch (Exception error) {
            return JSON.createObjectNode().put("failed", String.valueOf(error));
        }
    }

    /** Every API with its stable versions, and every error code with its name. */
    private static JsonNode tables() {
        ObjectNode found = JSON.createObjectNode();
        ObjectNode apis = found.putObject("apis");
        for (ApiKeys api : ApiKeys.values()) {
            apis.putObject(api.name())
                .put("key", api.id)
                .put("min", api.oldestVersion())
                .put("max", api.latestVersion(false));
        }
        ObjectNode errors = found.putObject("errors");
        for (Errors error : Errors.values()) {
            errors.put(String.valueOf(error.code()), error.name());
        }
        return found;
    }

    private static JsonNode encode(JsonNode question) throws Exception {
        ApiKeys api = ApiKeys.valueOf(question.get("api").asText());
        short version = (short) question.get("version").asInt();
        ApiMessage body = api.messageType.newRequest();
        fill(body, question.get("body"), version);
        short headerVersion = api.requestHeaderVersion(version);
        var header = new RequestHeaderData()
            .setRequestApiKey(api.id)
            .setRequestApiVersion(version)
            .setCorrelationId(question.get("correlation").asInt())
            .setClientId(question.get("client").isNull() ? null : question.get("client").asText());
        var cache = new ObjectSerializationCache();
        int size = header.size(cache, headerVersion) + body.size(cache, version);
        ByteBuffer buffer = ByteBuffer.allocate(size);
        var writable = new ByteBufferAccessor(buffer);
        header.write(writable, cache, headerVersion);
        body.write(writable, cache, version);
        return JSON.createObjectNode().put("bytes", Base64.getEncoder().encodeToString(buffer.array()));
    }

    private static JsonNode decode(JsonNode question) throws Exception {
        ApiKeys api = ApiKeys.valueOf(question.get("api").asText());
        short version = (short) question.get("version").asInt();
        ByteBuffer buffer = ByteBuffer.wrap(Base64.getDecoder().decode(question.get("bytes").asText()));
        ResponseHeader header = ResponseHeader.parse(buffer, api.responseHeaderVersion(version));
        ApiMessage body = api.messageType.newResponse();
        body.read(new ByteBufferAccessor(buffer), version);
        Class<?> converter = Class.forName(body.getClass().getName() + "JsonConverter");
        var json = (JsonNode) converter
            .getMethod("write", body.getClass(), short.class, boolean.class)
            .invoke(null, body, version, false);
        showRecords(body, json);
        ObjectNode found = JSON.createObjectNode();
        found.put("correlation", header.correlationId());
        found.put("left", buffer.remaining());
        found.set("body", json);
        return found;
    }

    /** The converters give only the size of record data; the probe wants the bytes. */
    private static void showRecords(ApiMessage body, JsonNode json) {
        List<BaseRecords> records = new ArrayList<>();
        if (body instanceof FetchResponseData fetched) {
            fetched.responses().forEach(t -> t.partitions().forEach(p -> records.add(p.records())));
        } else if (body instanceof ShareFetchResponseData fetched) {
            fetched.responses().forEach(t -> t.partitions().forEach(p -> records.add(p.records())));
        } else {
            return;
        }
        var each = records.iterator();
        for (JsonNode topic : json.get("responses")) {
            for (JsonNode partition : topic.get("partitions")) {
                ((ObjectNode) partition).remove("recordsSizeInBytes");
                if (each.next() instanceof MemoryRecords found) {
                    ByteBuffer bytes = found.buffer().duplicate();
                    byte[] copy = new byte[bytes.remaining()];
                    bytes.get(copy);
                    ((ObjectNode) partition).put("records", Base64.getEncoder().encodeToString(copy));
                } else {
                    ((ObjectNode) partition).putNull("records");
                }
            }
        }
    }

    private static void fill(Object message, JsonNode fields, short version) throws Exception {
        Set<String> known = fieldNames(message.getClass(), version);
        for (var entry : fields.properties()) {
            if (known.contains(entry.getKey().toLowerCase())) {
                Method setter = setter(message.getClass(), entry.getKey());
                Object value = value(entry.getValue(), setter.getGenericParameterTypes()[0], version);
                setter.invoke(message, value);
            }
        }
    }

    /** The names that a version has, tagged ones included, in lower case without underscores. */
    private static Set<String> fieldNames(Class<?> message, short version) throws Exception {
        var schemas = (Schema[]) message.getField("SCHEMAS").get(null);
        if (version >= schemas.length || schemas[version] == null) {
            return Set.of();
        }
        Set<String> names = new HashSet<>();
        for (BoundField field : schemas[version].fields()) {
            if (field.def.type instanceof TaggedFields tagged) {
                tagged.fields().values().forEach(tag -> names.add(plain(tag.name)));
            } else {
                names.add(plain(field.def.name));
            }
        }
        return names;
    }

    private static String plain(String name) {
        return name.replace("_", "").toLowerCase();
    }

    private static Method setter(Class<?> message, String field) {
        String name = "set" + Character.toUpperCase(field.charAt(0)) + field.substring(1);
        for (Method method : message.getMethods()) {
            if (method.getName().equals(name)) {
                return method;
            }
        }
        throw new IllegalArgumentException(message.getSimpleName() + " has no " + field);
    }

    private static Object value(JsonNode json, Type type, short version) throws Exception {
        if (json.isNull()) {
            return null;
        }
        if (type instanceof ParameterizedType list) {
            var items = new ArrayList<Object>();
            for (JsonNode item : json) {
                items.add(value(item, list.getActualTypeArguments()[0], version));
            }
            return items;
        }
        var raw = (Class<?>) type;
        if (raw == String.class) {
            return json.asText();
        } else if (raw == boolean.class || raw == Boolean.class) {
            return json.asBoolean();
        } else if (raw == byte.class || raw == Byte.class) {
            return (byte) json.asInt();
        } else if (raw == short.class || raw == Short.class) {
            return (short) json.asInt();
        } else if (raw == int.class || raw == Integer.class) {
            return json.asInt();
        } else if (raw == long.class || raw == Long.class) {
            return json.asLong();
        } else if (raw == double.class || raw == Double.class) {
            return json.asDouble();
        } else if (raw == Uuid.class) {
            return Uuid.fromString(json.asText());
        } else if (raw == byte[].class) {
            return Base64.getDecoder().decode(json.asText());
        } else if (raw == ByteBuffer.class) {
            return ByteBuffer.wrap(Base64.getDecoder().decode(json.asText()));
        } else if (raw == BaseRecords.class) {
            return MemoryRecords.readableRecords(ByteBuffer.wrap(Base64.getDecoder().decode(json.asText())));
        } else if (Collection.class.isAssignableFrom(raw)) {
            // The generated `XCollection` holds elements of type `X`.
            Class<?> element = Class.forName(raw.getName().replaceFirst("Collection$", ""));
            @SuppressWarnings("unchecked")
            var collection = (Collection<Object>) raw.getConstructor().newInstance();
            for (JsonNode item : json) {
                if (!collection.add(value(item, element, version))) {
                    throw new IllegalStateException("the collection did not take an element");
                }
            }
            return collection;
        }
        Object nested = raw.getConstructor().newInstance();
        fill(nested, json, version);
        return nested;
    }
}
