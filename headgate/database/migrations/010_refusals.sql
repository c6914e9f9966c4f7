-- oldest-program: 1

-- How full a limit was when it refused, in the unit of what it counts; cost in nanos.
alter table headgate.usage_record
  add column limit_count text,
  add column limit_most bigint,
  add column limit_used bigint,
  add column limit_asked bigint;

-- A view keeps the columns of its first day.
drop view headgate.usage_line;
create view headgate.usage_line as
select r.*, p.name as "user", s.labels
from headgate.usage_record r
left join headgate.person p on p.id = r.person_id
left join headgate.label_set s on s.id = r.label_set_id;
grant select on headgate.usage_line to headgate_application;
