/** Commands for empty sections: each makes exactly that appear which the section misses. */

/** The browser reached the node under this name, so a shell beside it most likely does too. */
function host(): string {
  return window.location.hostname.replace(/^\[|\]$/g, "");
}

function publish(topic: string, payload: string): string {
  return `mosquitto_pub -h ${host()} -q 1 -t ${topic} \\\n  -m '${payload}'`;
}

function nowSeconds(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, "Z");
}

/** Beside every MQTT command: what the page cannot know of this node. */
export const MQTT_NOTE =
  "Where MQTT asks for credentials add -u CLIENT_ID -P CLIENT_SECRET; for a port other than 1883, -p PORT.";

export function publishCommand(): string {
  return publish("telemetry/inverters/inv-7", `{"device_id":"inv-7","device_ts":"${nowSeconds()}","power_kw":4.2}`);
}

export function publishBadCommand(): string {
  return publish("telemetry/inverters/inv-7", "this is not JSON");
}

export function publishSpeedCommand(): string {
  return publish("speed/sensor-1", `{"sensor_id":"sensor-1","speed":42,"ts":${Math.floor(Date.now() / 1000)}}`);
}

export function consumeCommand(): string {
  return `kcat -b ${host()}:9092 -G my-group telemetry.cleaned`;
}
