-- oldest-program: 1

-- A key may get other models, limits and labels after its issue.
grant update (models, limits, labels) on headgate.api_key to headgate_application;
