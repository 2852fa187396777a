"""Results as people see them: tables, pictures, pages, W&B panels."""
