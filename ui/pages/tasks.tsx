import { formatSize } from "#lib/model/size.ts";
import type { Task } from "../../services/api/schema.ts";
import { request } from "../client.ts";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, Meter, PageHead, RowAction } from "../components/parts.tsx";
import { type Column, Table } from "../components/table.tsx";
import { Age, formatAge } from "../components/time.tsx";
import { complain, say } from "../components/toast.tsx";
import { tasks } from "../live/state.ts";
import { phaseOf } from "./images.tsx";

export function TasksPage() {
  return (
    <>
      <PageHead title="Tasks">Work that takes a while, and how it went.</PageHead>
      {tasks.value === undefined ? (
        <Loading resource="tasks" />
      ) : (
        <Table
          label="Tasks"
          noun={["task", "tasks"]}
          rows={tasks.value}
          columns={columns}
          rowKey={(task) => task.id}
          text={(task) => `${task.title} ${task.state} ${task.failure ?? ""}`}
          empty={
            <Empty icon="task" title="No tasks yet">
              Importing an image is a task: it appears here with its progress, and stays with its
              outcome.
            </Empty>
          }
        />
      )}
    </>
  );
}

function cancel(task: Task): void {
  request("DELETE", `/tasks/${task.id}`)
    .then(() => say(`${task.title}: cancelled.`))
    .catch(complain);
}

const columns: Column<Task>[] = [
  {
    title: "Task",
    cell: (task) => (
      <>
        <span class="name" title={task.title}>
          {task.title}
        </span>
        <span class={`under${task.failure === null ? "" : " bad-text"}`} title={task.failure ?? ""}>
          {task.failure ?? detailOf(task)}
        </span>
      </>
    ),
  },
  {
    title: "State",
    width: "230px",
    sort: (task) => task.state,
    cell: (task) => <TaskState task={task} />,
  },
  {
    title: "Started",
    width: "130px",
    from: "medium",
    sort: (task) => task.startedAt,
    cell: (task) => (
      <span class="soft">
        <Age at={task.startedAt} />
      </span>
    ),
  },
  {
    title: "Took",
    width: "100px",
    from: "wide",
    cell: (task) =>
      task.endedAt === null ? (
        <span class="soft">–</span>
      ) : (
        <span class="soft number">
          {formatAge(Date.parse(task.endedAt) - Date.parse(task.startedAt))}
        </span>
      ),
  },
  {
    title: "Actions",
    permission: "storage:write",
    width: "70px",
    end: true,
    cell: (task) =>
      task.state === "running" ? (
        <div class="row-actions">
          <RowAction
            icon="close"
            danger
            label={`Cancel: ${task.title}`}
            onClick={() => cancel(task)}
          />
        </div>
      ) : null,
  },
];

function detailOf(task: Task): string {
  if (task.bytesTotal === null) return "";
  return task.bytesDone === null || task.state !== "running"
    ? formatSize(task.bytesTotal)
    : `${formatSize(task.bytesDone)} of ${formatSize(task.bytesTotal)}`;
}

export function TaskState({ task }: { task: Task }) {
  if (task.state === "done") return <Badge tone="good">Done</Badge>;
  if (task.state === "failed") return <Badge tone="bad">Failed</Badge>;
  if (task.state === "cancelled") return <Badge tone="idle">Cancelled</Badge>;
  const share = task.progressPercent === null ? undefined : task.progressPercent / 100;
  return (
    <div class="used">
      <span class="small number">
        {phaseOf(task)}
        {share === undefined ? "" : ` · ${Math.round(share * 100)} %`}
      </span>
      <Meter thin share={share} label={task.title} />
    </div>
  );
}
