using System.Text.Json;

namespace HpcBatchNorm.Layers;

/// <summary>
/// Writes a layer's attributes to a network file. What equals the value that the reader takes when there is none (<c>unless</c>) is left out.
/// Names are in lower case with underscores: <c>include_padding</c>.
/// </summary>
public sealed class LayerWriter
{
    private readonly Utf8JsonWriter _json;
    private bool _begun;

    internal LayerWriter(Utf8JsonWriter json) => _json = json;

    /// <summary>A whole number.</summary>
    public void Write(string attribute, int value, int? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            _json.WriteNumberValue(value);
        }
    }

    /// <summary>A number; written with as many digits as it takes to read the same.</summary>
    public void Write(string attribute, float value, float? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            _json.WriteNumberValue(value);
        }
    }

    /// <summary>True or false.</summary>
    public void Write(string attribute, bool value, bool? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            _json.WriteBooleanValue(value);
        }
    }

    /// <summary>A text.</summary>
    public void Write(string attribute, string value, string? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            _json.WriteStringValue(value);
        }
    }

    /// <summary>Rows and columns: a number where they are the same, else <c>[rows, columns]</c>.</summary>
    public void Write(string attribute, Extent value, Extent? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            Write(value.IsSquare ? [value.Height] : [value.Height, value.Width]);
        }
    }

    /// <summary>Padding: a number, <c>[rows, columns]</c>, or <c>[top, left, bottom, right]</c>, whichever is shortest.</summary>
    public void Write(string attribute, Padding value, Padding? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            Write(
                value == value.Top ? [value.Top]
                : value == (value.Top, value.Left) ? [value.Top, value.Left]
                : [value.Top, value.Left, value.Bottom, value.Right]);
        }
    }

    /// <summary>Initial values: <c>{"fan_in": 2}</c>, <c>{"gaussian": 0.01}</c> or <c>{"constant": 1}</c>.</summary>
    public void Write(string attribute, Initializer value, Initializer? unless = null)
    {
        if (value != unless)
        {
            Begin(attribute);
            value.Write(_json);
        }
    }

    /// <summary>Ends the attributes, if there were any.</summary>
    internal void End()
    {
        if (_begun)
        {
            _json.WriteEndObject();
        }
    }

    private void Begin(string attribute)
    {
        if (!_begun)
        {
            _json.WriteStartObject("attributes");
            _begun = true;
        }

        _json.WritePropertyName(attribute);
    }

    private void Write(ReadOnlySpan<int> values)
    {
        if (values.Length == 1)
        {
            _json.WriteNumberValue(values[0]);
            return;
        }

        _json.WriteStartArray();
        foreach (int value in values)
        {
            _json.WriteNumberValue(value);
        }

        _json.WriteEndArray();
    }
}
