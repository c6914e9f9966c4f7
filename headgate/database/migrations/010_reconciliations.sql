-- oldest-program: 1

-- Statements of `headgate ledger reconcile --keep`: the tokens by vLLM and by the ledger in a span,
-- for the page of the month. The same span again takes the place of the earlier statement, as late
-- records may have come. Spans do not overlap, so statements of a month can be added.
create table headgate.reconciliation (
  begin_at timestamptz primary key,
  end_at timestamptz not null check (end_at > begin_at),
  compared_at timestamptz not null,
  exclude using gist (tstzrange(begin_at, end_at) with &&)
);

create table headgate.reconciled_pod (
  begin_at timestamptz not null references headgate.reconciliation on delete cascade,
  pod text not null,
  model text not null,
  engine_prompt bigint not null check (engine_prompt >= 0),
  engine_completion bigint not null check (engine_completion >= 0),
  ledger_requests bigint not null check (ledger_requests >= 0),
  ledger_prompt bigint not null check (ledger_prompt >= 0),
  ledger_completion bigint not null check (ledger_completion >= 0),
  unsure bigint not null check (unsure >= 0),
  primary key (begin_at, pod)
);

grant select, insert, delete on headgate.reconciliation to headgate_application;
grant select, insert, delete on headgate.reconciled_pod to headgate_application;
