"""How a request went, as SQL over `headgate.usage_line`: its result, and why it was not billed."""

RESULTS = ("answered", "refused", "failed", "aborted")
"""How a request went, for people."""
RESULT = """case when ended = 'client_left' then 'aborted'
  when ended = 'upstream_broke' or status >= 500 or status is null then 'failed'
  when status >= 400 then 'refused' else 'answered' end"""
"""One of RESULTS."""
REASON = """case when source in ('usage', 'partial', 'estimate') then null
  when "limit" is not null then 'limit'
  when status in (401, 403) then 'access'
  when ended = 'client_left' or status is null then 'aborted'
  when status between 400 and 499 then 'request'
  when status >= 500 or ended = 'upstream_broke' then 'failed'
  else 'free' end"""
"""Why a request was not billed, a `Reason` of the showback; null for a billed one."""
