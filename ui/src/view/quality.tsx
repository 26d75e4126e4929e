/** What the validator made of the records, by topic. */
import { count, percent } from "../format/number.ts";
import { instant } from "../format/time.ts";
import type { Quality, TopicQuality } from "../node/messages.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { Command } from "./command.tsx";
import { MQTT_NOTE, publishCommand } from "./examples.ts";
import { Empty, Scroll, Section, Waiting } from "./section.tsx";

const FAILURES_NAMED = 6;

export function QualityTable({ dashboard }: { dashboard: Dashboard }) {
  const quality = dashboard.quality.value;
  return (
    <Section
      id="quality"
      room="quality"
      title="Quality"
      dashboard={dashboard}
      aside="telemetry records by kind; degraded: rejected, incomplete or without a usable timestamp"
    >
      {quality === null && <Waiting what="the quality summary" />}
      {quality !== null && quality.topics.length === 0 && (
        <Empty>
          <p>No telemetry record has been judged yet. To send one:</p>
          <Command text={publishCommand()} note={MQTT_NOTE} />
        </Empty>
      )}
      {quality !== null && quality.topics.length > 0 && (
        <>
          <Findings quality={quality} />
          <Scroll label="Quality by topic">
            <Rows quality={quality} />
          </Scroll>
        </>
      )}
    </Section>
  );
}

function Findings({ quality }: { quality: Quality }) {
  const worst = quality.topics.find((topic) => topic.topic === quality.mostDegraded);
  return (
    <div class="findings">
      <p>
        <span class="findings-name">Most degraded</span>
        {quality.mostDegraded === null ? (
          "none"
        ) : (
          <>
            <strong>{quality.mostDegraded}</strong>
            {worst && `, ${percent(worst.degradedShare)} of its records`}
          </>
        )}
      </p>
      <p>
        <span class="findings-name">Rejected most often for</span>
        {quality.mostFailing.length === 0
          ? "nothing yet"
          : quality.mostFailing.slice(0, FAILURES_NAMED).map((failing) => (
              <span class="failing" key={failing.name}>
                <code>{failing.name}</code> {count(failing.count)}
              </span>
            ))}
      </p>
    </div>
  );
}

function Rows({ quality }: { quality: Quality }) {
  return (
    <table class="table">
      <caption class="visually-hidden">Quality of telemetry records by topic</caption>
      <thead>
        <tr>
          <th scope="col">Topic</th>
          <th scope="col" class="number">
            Accepted
          </th>
          <th scope="col" class="number">
            With gaps
          </th>
          <th scope="col" class="number">
            Missing fields
          </th>
          <th scope="col" class="number">
            Fallback timestamp
          </th>
          <th scope="col" class="number">
            Rejected
          </th>
          <th scope="col" class="number">
            Duplicates
          </th>
          <th scope="col" class="number">
            Degraded
          </th>
          <th scope="col" class="number">
            Last event
          </th>
          <th scope="col" class="number">
            Last received
          </th>
        </tr>
      </thead>
      <tbody>
        {quality.topics.map((topic) => (
          <Row key={topic.topic} topic={topic} worst={topic.topic === quality.mostDegraded} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ topic, worst }: { topic: TopicQuality; worst: boolean }) {
  return (
    <tr class={worst ? "worst" : ""}>
      <th scope="row">
        {topic.topic}
        {worst && <span class="tag tag-warn">most degraded</span>}
      </th>
      <td class="number">{count(topic.accepted)}</td>
      <td class={`number ${topic.recordsWithGaps > 0 ? "warn" : ""}`}>{count(topic.recordsWithGaps)}</td>
      <td class="number">{count(topic.missingFields)}</td>
      <td class={`number ${topic.fallbackTimestamps > 0 ? "warn" : ""}`}>{count(topic.fallbackTimestamps)}</td>
      <td class={`number ${topic.rejected > 0 ? "bad" : ""}`}>{count(topic.rejected)}</td>
      <td class="number">{count(topic.duplicates)}</td>
      <td class="number degraded">
        <meter min={0} max={1} value={topic.degradedShare} aria-hidden="true" />
        <span class="share">{percent(topic.degradedShare)}</span>
      </td>
      <td class="number">{instant(topic.lastEventTime)}</td>
      <td class="number">{instant(topic.lastReceivedTime)}</td>
    </tr>
  );
}
