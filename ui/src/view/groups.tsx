/** Consumer groups and how far behind they are. */
import { Sparkline } from "../chart/sparkline.tsx";
import { count } from "../format/number.ts";
import type { GroupLag } from "../node/messages.ts";
import type { Dashboard } from "../state/dashboard.ts";
import { groupKey, seriesOf, type History } from "../state/history.ts";
import { Command } from "./command.tsx";
import { consumeCommand } from "./examples.ts";
import { Empty, Scroll, Section, Waiting } from "./section.tsx";

const TREND_MS = 2 * 60_000;
/** Below this many records a group is as good as caught up. */
const LAG_LEAST = 100;

export function Groups({ dashboard }: { dashboard: Dashboard }) {
  const overview = dashboard.overview.value;
  const history = dashboard.history.value;
  const groups = [...(overview?.groups ?? [])].sort(
    (a, b) => a.group.localeCompare(b.group) || a.topic.localeCompare(b.topic),
  );
  return (
    <Section id="groups" title="Consumer groups" dashboard={dashboard} aside="lag in records">
      {overview === null && <Waiting what="the groups" />}
      {overview !== null && groups.length === 0 && (
        <Empty>
          <p>No group has committed an offset. To start one:</p>
          <Command text={consumeCommand()} />
        </Empty>
      )}
      {groups.length > 0 && (
        <Scroll label="Consumer groups and lag">
          <table class="table">
            <caption class="visually-hidden">Consumer groups with committed offsets and lag</caption>
            <thead>
              <tr>
                <th scope="col">Group</th>
                <th scope="col">Topic</th>
                <th scope="col" class="number">
                  Lag
                </th>
                <th scope="col" class="trend">
                  2 min
                </th>
                <th scope="col" class="number">
                  Committed
                </th>
              </tr>
            </thead>
            <tbody>
              {groups.map((group) => (
                <GroupRow key={groupKey(group.group, group.topic)} group={group} history={history} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Section>
  );
}

function GroupRow({ group, history }: { group: GroupLag; history: History }) {
  const to = history.at(-1)?.tsMs ?? 0;
  const key = groupKey(group.group, group.topic);
  const points = seriesOf(history, to - TREND_MS, (sample) => sample.lags.get(key) ?? null);
  return (
    <tr>
      <th scope="row">{group.group}</th>
      <td>{group.topic}</td>
      <td class="number strong">{count(group.lag)}</td>
      <td class="trend">
        <Sparkline
          points={points}
          from={to - TREND_MS}
          to={to}
          width={72}
          height={20}
          least={LAG_LEAST}
          class="sparkline-lag"
        />
      </td>
      <td class="number">{count(group.committed)}</td>
    </tr>
  );
}
