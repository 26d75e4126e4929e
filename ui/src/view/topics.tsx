/** Topics with their rates, offsets and, unfolded, their partitions. */
import { useState } from "preact/hooks";
import { Fragment } from "preact";
import { smoothed } from "../chart/scale.ts";
import { Sparkline } from "../chart/sparkline.tsx";
import { bytes, count, NOT_KNOWN, rate } from "../format/number.ts";
import type { TopicDetail, TopicRate } from "../node/messages.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { seriesOf, type History } from "../state/history.ts";
import { Scroll, Section, Waiting } from "./section.tsx";

const TREND_MS = 2 * 60_000;
/** Batches make the rate of a single second jump; the trend is the mean of so many. */
const TREND_SMOOTHED_OVER = 5;
const COLUMNS = 7;

/** Until the node has told which topics are internal, their customary prefix decides. */
export function isInternal(name: string, details: readonly TopicDetail[]): boolean {
  return details.find((topic) => topic.name === name)?.internal ?? name.startsWith("__");
}

export function Topics({ dashboard }: { dashboard: Dashboard }) {
  const [withInternal, setWithInternal] = useState(false);
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  const overview = dashboard.overview.value;
  const details = dashboard.topicDetails.value;
  const rated = (overview?.topics ?? []).filter((topic) => !isInternal(topic.name, details));
  const internal = internalTopics(overview?.topics ?? [], details);
  const shown = withInternal ? [...rated, ...internal] : rated;
  const toggle = (name: string) => {
    const next = new Set(open);
    if (!next.delete(name)) next.add(name);
    setOpen(next);
  };
  const aside = internal.length > 0 && (
    <label class="check">
      <input
        type="checkbox"
        checked={withInternal}
        onChange={(event) => setWithInternal(event.currentTarget.checked)}
      />
      Internal topics
    </label>
  );
  return (
    <Section id="topics" title="Topics" dashboard={dashboard} aside={aside}>
      {overview === null ? (
        <Waiting what="the list of topics" />
      ) : (
        <Scroll label="Topics, offsets and rates">
          <table class="table">
            <caption class="visually-hidden">Topics with rates and offsets</caption>
            <thead>
              <tr>
                <th scope="col">Topic</th>
                <th scope="col" class="number">
                  Records/s
                </th>
                <th scope="col" class="trend">
                  2 min
                </th>
                <th scope="col" class="number">
                  Log start
                </th>
                <th scope="col" class="number">
                  High watermark
                </th>
                <th scope="col" class="number">
                  Size
                </th>
                <th scope="col" class="number">
                  Partitions
                </th>
              </tr>
            </thead>
            <tbody>
              {shown.map((topic) => {
                const detail = details.find((candidate) => candidate.name === topic.name);
                return (
                  <Fragment key={topic.name}>
                    <TopicLine
                      topic={topic}
                      detail={detail}
                      history={dashboard.history.value}
                      open={open.has(topic.name)}
                      onToggle={() => toggle(topic.name)}
                    />
                    {open.has(topic.name) && <PartitionRows topic={topic.name} detail={detail} />}
                  </Fragment>
                );
              })}
            </tbody>
          </table>
        </Scroll>
      )}
    </Section>
  );
}

/** A topic as a row: its rate may be unknown. */
type TopicRow = Pick<TopicRate, "name" | "partitions" | "logStart" | "highWatermark"> & { recordsPerS: number | null };

interface RowProps {
  topic: TopicRow;
  detail: TopicDetail | undefined;
  history: History;
  open: boolean;
  onToggle: () => void;
}

/** The overview may leave the node's own topics out; their offsets are still known from the details. */
function internalTopics(rated: readonly TopicRate[], details: readonly TopicDetail[]): TopicRow[] {
  const unrated = details
    .filter((detail) => detail.internal && !rated.some((topic) => topic.name === detail.name))
    .map((detail) => ({
      name: detail.name,
      partitions: detail.partitions.length,
      recordsPerS: null,
      logStart: detail.partitions.reduce((sum, partition) => sum + partition.logStart, 0),
      highWatermark: detail.partitions.reduce((sum, partition) => sum + partition.highWatermark, 0),
    }));
  return [...rated.filter((topic) => isInternal(topic.name, details)), ...unrated];
}

function TopicLine({ topic, detail, history, open, onToggle }: RowProps) {
  const to = history.at(-1)?.tsMs ?? 0;
  const points = seriesOf(history, to - TREND_MS, (sample) => sample.rates.get(topic.name) ?? null);
  const size = detail?.partitions.reduce((sum, partition) => sum + partition.sizeBytes, 0);
  return (
    <tr class={topic.recordsPerS === 0 ? "idle" : ""}>
      <th scope="row">
        <button class="unfold" type="button" aria-expanded={open} onClick={onToggle}>
          {topic.name}
        </button>
      </th>
      <td class="number strong">{rate(topic.recordsPerS)}</td>
      <td class="trend">
        <Sparkline points={smoothed(points, TREND_SMOOTHED_OVER)} from={to - TREND_MS} to={to} width={96} height={20} />
      </td>
      <td class="number">{count(topic.logStart)}</td>
      <td class="number">{count(topic.highWatermark)}</td>
      <td class="number">{size === undefined ? NOT_KNOWN : bytes(size)}</td>
      <td class="number">{count(topic.partitions)}</td>
    </tr>
  );
}

function PartitionRows({ topic, detail }: { topic: string; detail: TopicDetail | undefined }) {
  if (!detail) {
    return (
      <tr class="nested">
        <td colSpan={COLUMNS} class="muted">
          Waiting for the partitions of {topic}…
        </td>
      </tr>
    );
  }
  return (
    <>
      {detail.partitions.map((partition) => (
        <tr key={partition.partition} class="nested">
          <th scope="row" colSpan={3}>
            partition {partition.partition}
          </th>
          <td class="number">{count(partition.logStart)}</td>
          <td class="number">{count(partition.highWatermark)}</td>
          <td class="number">{bytes(partition.sizeBytes)}</td>
          <td />
        </tr>
      ))}
    </>
  );
}
